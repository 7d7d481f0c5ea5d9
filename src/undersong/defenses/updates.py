"""The updates of a saved LoRA, changed one by one and saved again as a standard PEFT folder.

Knows a folder's tensors; does not know why an update is changed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from undersong.models.adapters import WEIGHTS
from undersong.models.tensors import read_tensors
from undersong.types import UndersongError

NAME = re.compile(r"^base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])\.weight$")
LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Update:
    """What LoRA adds to the linear layer at `path`: up to its scale, b (out, rank) @ a (rank, in)."""

    path: str
    a: torch.Tensor
    b: torch.Tensor

    @property
    def layer(self) -> int:
        """Of the decoder, from 0."""
        place = LAYER.search(self.path)
        if place is None:
            raise UndersongError(f"LoRA on {self.path} is in no layer of the decoder; it cannot be taken apart.")
        return int(place[1])


def updates_of(folder: Path) -> list[Update]:
    """In the order of their paths.  Raises UndersongError for a tensor that is no part of a plain LoRA."""
    return _updates(read_tensors(folder / WEIGHTS), folder)


def _updates(tensors: dict[str, torch.Tensor], folder: Path) -> list[Update]:
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        place = NAME.match(name)
        if place is None:
            raise UndersongError(f"{folder} holds {name}, which is no part of a plain LoRA; give a plain one.")
        sides.setdefault(place["path"], {})[place["side"]] = value
    return [Update(path, sides[path]["A"], sides[path]["B"]) for path in sorted(sides)]


def rewrite(folder: Path, out: Path, change: Callable[[Update], torch.Tensor | None]) -> list[str]:
    """A copy of `folder` at `out` whose b matrices are what `change` makes of each update; None: as it was.

    Returns the paths of those that were changed.
    """
    from safetensors.torch import save_file

    shutil.copytree(folder, out, dirs_exist_ok=True)
    tensors, changed = read_tensors(folder / WEIGHTS), []
    for update in _updates(tensors, folder):
        b = change(update)
        if b is not None:
            tensors[f"base_model.model.{update.path}.lora_B.weight"] = b.to(update.b.dtype).contiguous()
            changed.append(update.path)
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    return changed
