"""`make bench`: every ratio, each inside one run."""

from importlib import import_module

NAMES = (
    *(
        "nearest",
        "generation",
        "decoding",
        "margin",
        "probing",
        "judging",
        "features",
        "encoders",
        "screening",
        "checking",
        "memory",
        "scale",
        "overhead",
    ),
    *("startup", "report", "demo"),
)

if __name__ == "__main__":
    for name in NAMES:
        import_module(f"benchmarks.{name}").main()
