"""Tensors that are read whole and finite, or refused: a model under a NaN says nothing harmful, and looks safe.

Knows files and tensors; does not know what they are of.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from undersong.types import UndersongError

if TYPE_CHECKING:
    import torch

LOADING_ERRORS = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip


def first_non_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """Name of the first tensor that holds NaN or an infinity; None: there is none."""
    return next((name for name, value in tensors if not value.isfinite().all()), None)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file by name.  Errors, which name its folder: a file that is not there, cut off or
    damaged, a tensor that is not finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UndersongError(
            f"{file.name} in {file.parent} cannot be read ({error}); copy it again, or train it again."
        ) from error
    if non_finite := first_non_finite(tensors.items()):
        raise UndersongError(
            f"{non_finite} in {file.parent} is not finite, so its training diverged; train it again at a lower learning rate."
        )
    return tensors
