"""`make bench`: every ratio, each inside one run."""

from benchmarks import demo, encoders, features, generation, nearest, scale, screening

if __name__ == "__main__":
    for benchmark in (nearest, generation, features, encoders, screening, scale, demo):
        benchmark.main()
