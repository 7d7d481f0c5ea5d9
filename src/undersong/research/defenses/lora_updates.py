"""Read the LoRA updates of a saved adapter, change them and save a standard PEFT folder: Safe LoRA (Hsu et al. 2024,
arXiv 2405.16833), projection off a direction (Arditi et al. 2024, arXiv 2406.11717), and zeroed layers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from undersong.models.adapter_files import ADAPTER_WEIGHTS
from undersong.models.weights import read_tensors
from undersong.types import UndersongError

LORA_WEIGHT_PATTERN = re.compile(r"^base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])\.weight$")
LAYER_PATTERN = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True)
class LoraUpdate:
    """LoRA update of the linear layer at `path`: b (out, rank) @ a (rank, in), up to its scale."""

    path: str
    a: torch.Tensor
    b: torch.Tensor

    @property
    def layer(self) -> int:
        """Layer of the decoder, from 0.

        Raises:
            UndersongError: The path is in no layer of the decoder.
        """
        match = LAYER_PATTERN.search(self.path)
        if match is None:
            raise UndersongError(f"LoRA on {self.path} is in no layer of the decoder, so it cannot be edited by layer.")
        return int(match[1])


def _lora_updates(tensors: dict[str, torch.Tensor], folder: Path) -> list[LoraUpdate]:
    matrices: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = LORA_WEIGHT_PATTERN.match(name)
        if match is None:
            raise UndersongError(f"{folder} holds {name}, which is not part of a plain LoRA; use a plain LoRA adapter.")
        matrices.setdefault(match["path"], {})[match["side"]] = tensor
    return [LoraUpdate(path, matrices[path]["A"], matrices[path]["B"]) for path in sorted(matrices)]


def rewrite_adapter(folder: Path, out_folder: Path, edit: Callable[[LoraUpdate], torch.Tensor | None]) -> list[str]:
    """Copy an adapter folder, with b matrices replaced by what `edit` returns for each update (None: unchanged).

    Returns the paths of the changed updates.
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


WeightLookup = Callable[[str], torch.Tensor]  # path of a linear layer -> its weight (out, in)
RESIDUAL_WRITERS = ("o_proj", "down_proj")  # linear layers whose output is added to the residual stream


def project_safe_lora(
    aligned_weights: WeightLookup, unaligned_weights: WeightLookup, threshold: float
) -> Callable[[LoraUpdate], torch.Tensor | None]:
    """Edit for `rewrite_adapter`: C B if the cosine of C BA and BA is at most `threshold`, else unchanged."""

    def project(update: LoraUpdate) -> torch.Tensor | None:
        aligned_weight, unaligned_weight = aligned_weights(update.path).float(), unaligned_weights(update.path).float()
        if aligned_weight.shape != unaligned_weight.shape:
            raise UndersongError(
                f"{update.path} is {tuple(aligned_weight.shape)} in the aligned model and "
                f"{tuple(unaligned_weight.shape)} in the unaligned one; give the model that alignment began from."
            )
        alignment_update = aligned_weight - unaligned_weight
        norm = torch.linalg.norm(alignment_update)
        if norm == 0:
            return torch.zeros_like(update.b)  # alignment did not change this layer: its subspace is empty
        b = update.b.float()
        projected = alignment_update @ (alignment_update.T @ b) / norm
        return projected if update_cosine(projected, b, update.a.float()) <= threshold else None

    return project


def update_cosine(first_b: torch.Tensor, second_b: torch.Tensor, a: torch.Tensor) -> float:
    """Cosine of the updates `first_b` @ a and `second_b` @ a (out, in), without computing either; 0 if one is zero."""
    inner = a @ a.T
    inner_product, first_square, second_square = (
        ((x.T @ y) * inner).sum() for x, y in ((first_b, second_b), (first_b, first_b), (second_b, second_b))
    )
    norm_product = float(first_square.clamp(min=0).sqrt() * second_square.clamp(min=0).sqrt())
    return float(inner_product) / norm_product if norm_product > 0 else 0.0


def project_off_direction(unit: np.ndarray) -> Callable[[LoraUpdate], torch.Tensor | None]:
    """Edit for `rewrite_adapter`: nothing is written along `unit` (layers + 1, dim) of the layer that is written to.

    Linear layers that do not write to the residual stream are unchanged, and so are layers without a direction.
    """

    def project(update: LoraUpdate) -> torch.Tensor | None:
        direction = torch.from_numpy(unit[update.layer + 1]).float()
        if not update.path.endswith(RESIDUAL_WRITERS) or not torch.isfinite(direction).all():
            return None
        if len(direction) != len(update.b):
            raise UndersongError(
                f"{update.path} writes {len(update.b)} numbers and the direction has {len(direction)}; "
                "use a direction of the same model."
            )
        b = update.b.float()
        return b - torch.outer(direction, direction @ b)

    return project


def zero_layers(layers: set[int]) -> Callable[[LoraUpdate], torch.Tensor | None]:
    """Edit for `rewrite_adapter`: the updates of these decoder layers (from 0) become zero."""
    return lambda update: torch.zeros_like(update.b) if update.layer in layers else None
