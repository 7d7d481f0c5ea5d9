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

from undersong.models.lora import ADAPTER_WEIGHTS
from undersong.models.tensors import read_tensors
from undersong.types import UndersongError

LORA_WEIGHT_PATTERN = re.compile(r"^base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])\.weight$")
LAYER_PATTERN = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class LoraUpdate:
    """What LoRA adds to the linear layer at `path`: up to its scale, b (out, rank) @ a (rank, in)."""

    path: str
    a: torch.Tensor
    b: torch.Tensor

    @property
    def layer(self) -> int:
        """Of the decoder, from 0."""
        match = LAYER_PATTERN.search(self.path)
        if match is None:
            raise UndersongError(f"LoRA on {self.path} is in no layer of the decoder; it cannot be taken apart.")
        return int(match[1])


def read_lora_updates(folder: Path) -> list[LoraUpdate]:
    """In the order of their paths.  Raises UndersongError for a tensor that is no part of a plain LoRA."""
    return _lora_updates(read_tensors(folder / ADAPTER_WEIGHTS), folder)


def _lora_updates(tensors: dict[str, torch.Tensor], folder: Path) -> list[LoraUpdate]:
    matrices: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = LORA_WEIGHT_PATTERN.match(name)
        if match is None:
            raise UndersongError(f"{folder} holds {name}, which is no part of a plain LoRA; give a plain one.")
        matrices.setdefault(match["path"], {})[match["side"]] = tensor
    return [LoraUpdate(path, matrices[path]["A"], matrices[path]["B"]) for path in sorted(matrices)]


def rewrite_adapter(folder: Path, out_folder: Path, edit: Callable[[LoraUpdate], torch.Tensor | None]) -> list[str]:
    """A copy of `folder` at `out` whose b matrices are what `change` makes of each update; None: as it was.

    Returns the paths of those that were changed.
    """
    from safetensors.torch import save_file

    shutil.copytree(folder, out_folder, dirs_exist_ok=True)
    tensors, changed_paths = read_tensors(folder / ADAPTER_WEIGHTS), []
    for update in _lora_updates(tensors, folder):
        b = edit(update)
        if b is not None:
            tensors[f"base_model.model.{update.path}.lora_B.weight"] = b.to(update.b.dtype).contiguous()
            changed_paths.append(update.path)
    save_file(tensors, out_folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    return changed_paths
