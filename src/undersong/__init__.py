"""undersong finds the harm beneath harmless audio: it audits audio language models around benign fine-tuning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from undersong.api import Audited, Compared, audit, compare, screen
    from undersong.integrations.trainer_callback import UndersongCallback
    from undersong.models.load_options import Loading
    from undersong.pipeline.screening.output import Screened
    from undersong.types import UndersongError

# Loaded when first asked for: `import undersong` costs nothing and brings in no torch.
_LAZY_EXPORTS = {
    "integrations.callback": ("UndersongCallback",),
    "integrations.python": ("Audited", "Compared", "Screened", "audit", "compare", "screen"),
    "models.loading": ("Loading",),
    "types": ("UndersongError",),
}

__all__ = [
    "Audited",
    "Compared",
    "Loading",
    "Screened",
    "UndersongCallback",
    "UndersongError",
    "__version__",
    "audit",
    "compare",
    "screen",
]


def __getattr__(name: str) -> Any:
    for submodule, names in _LAZY_EXPORTS.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{submodule}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
