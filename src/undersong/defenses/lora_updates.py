"""An adapter projected after training: on the subspace that alignment moved, or off the refusal direction.

Safe LoRA (Hsu et al. 2024, arXiv 2405.16833): with V = aligned - unaligned weights of a layer, the update BA becomes
C BA with C = V V' / ||V||, where it is unlike its projection.  As published: C is no projector (applied twice it is not
itself), and it carries the size of V, so a base that alignment hardly moved loses nearly all of the update.  Without
unaligned weights: what the adapter writes along the aligned model's own refusal direction is taken out (after Arditi et
al. 2024, arXiv 2406.11717, section 4, there of all weights).  B A stays of low rank.  Knows weights and directions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from undersong.defenses.updates import LoraUpdate
from undersong.types import UndersongError

WeightLookup = Callable[[str], torch.Tensor]  # path of a linear layer -> its weight (out, in)
RESIDUAL_WRITERS = ("o_proj", "down_proj")  # linear layers whose output is added to the residual stream


def project_safe_lora(
    aligned_weights: WeightLookup, unaligned_weights: WeightLookup, threshold: float
) -> Callable[[LoraUpdate], torch.Tensor | None]:
    """A change for `rewrite`: C B where the cosine of C BA and BA is at most `threshold`, else as it was."""

    def project(update: LoraUpdate) -> torch.Tensor | None:
        aligned_weight, unaligned_weight = aligned_weights(update.path).float(), unaligned_weights(update.path).float()
        if aligned_weight.shape != unaligned_weight.shape:
            raise UndersongError(
                f"{update.path} is {tuple(aligned_weight.shape)} in the aligned model and {tuple(unaligned_weight.shape)} in the unaligned; "
                "give the model that alignment began from."
            )
        alignment_update = aligned_weight - unaligned_weight
        norm = torch.linalg.norm(alignment_update)
        if norm == 0:
            return torch.zeros_like(update.b)  # alignment left this layer alone: its subspace is empty
        b = update.b.float()
        projected = alignment_update @ (alignment_update.T @ b) / norm
        return projected if update_cosine(projected, b, update.a.float()) <= threshold else None

    return project


def update_cosine(first_b: torch.Tensor, second_b: torch.Tensor, a: torch.Tensor) -> float:
    """Of the updates `one` @ a and `other` @ a (out, in), without either of them; 0 where one is nothing."""
    inner = a @ a.T
    inner_product, first_square, second_square = (
        ((x.T @ y) * inner).sum() for x, y in ((first_b, second_b), (first_b, first_b), (second_b, second_b))
    )
    norm_product = float(first_square.clamp(min=0).sqrt() * second_square.clamp(min=0).sqrt())
    return float(inner_product) / norm_product if norm_product > 0 else 0.0


def project_off_direction(unit: np.ndarray) -> Callable[[LoraUpdate], torch.Tensor | None]:
    """A change for `rewrite`: nothing is written along `unit` (layers + 1, dim), of the place that a layer writes to.

    Layers that do not write to the residual stream stay as they were, and so does a place without a direction.
    """

    def project(update: LoraUpdate) -> torch.Tensor | None:
        direction = torch.from_numpy(unit[update.layer + 1]).float()
        if not update.path.endswith(RESIDUAL_WRITERS) or not torch.isfinite(direction).all():
            return None
        if len(direction) != len(update.b):
            raise UndersongError(
                f"{update.path} writes {len(update.b)} numbers and the direction has {len(direction)}."
            )
        b = update.b.float()
        return b - torch.outer(direction, direction @ b)

    return project


def zero_layers(layers: set[int]) -> Callable[[LoraUpdate], torch.Tensor | None]:
    """A change for `rewrite`: the updates of these decoder layers (from 0) add nothing."""
    return lambda update: torch.zeros_like(update.b) if update.layer in layers else None
