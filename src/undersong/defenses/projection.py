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

from undersong.defenses.updates import Update
from undersong.types import UndersongError

Weights = Callable[[str], torch.Tensor]  # path of a linear layer -> its weight (out, in)
WRITES = ("o_proj", "down_proj")  # linear layers whose output is added to the residual stream


def aligned(with_alignment: Weights, without: Weights, threshold: float) -> Callable[[Update], torch.Tensor | None]:
    """A change for `rewrite`: C B where the cosine of C BA and BA is at most `threshold`, else as it was."""

    def change(update: Update) -> torch.Tensor | None:
        one, other = with_alignment(update.path).float(), without(update.path).float()
        if one.shape != other.shape:
            raise UndersongError(
                f"{update.path} is {tuple(one.shape)} in the aligned model and {tuple(other.shape)} in the unaligned; "
                "give the model that alignment began from."
            )
        moved = one - other
        size = torch.linalg.norm(moved)
        if size == 0:
            return torch.zeros_like(update.b)  # alignment left this layer alone: its subspace is empty
        b = update.b.float()
        projected = moved @ (moved.T @ b) / size
        return projected if cosine(projected, b, update.a.float()) <= threshold else None

    return change


def cosine(one: torch.Tensor, other: torch.Tensor, a: torch.Tensor) -> float:
    """Of the updates `one` @ a and `other` @ a (out, in), without either of them; 0 where one is nothing."""
    inner = a @ a.T
    along, first, second = (((x.T @ y) * inner).sum() for x, y in ((one, other), (one, one), (other, other)))
    size = float(first.clamp(min=0).sqrt() * second.clamp(min=0).sqrt())
    return float(along) / size if size > 0 else 0.0


def off_direction(unit: np.ndarray) -> Callable[[Update], torch.Tensor | None]:
    """A change for `rewrite`: nothing is written along `unit` (layers + 1, dim), of the place that a layer writes to.

    Layers that do not write to the residual stream stay as they were, and so does a place without a direction.
    """

    def change(update: Update) -> torch.Tensor | None:
        along = torch.from_numpy(unit[update.layer + 1]).float()
        if not update.path.endswith(WRITES) or not torch.isfinite(along).all():
            return None
        if len(along) != len(update.b):
            raise UndersongError(f"{update.path} writes {len(update.b)} numbers and the direction has {len(along)}.")
        b = update.b.float()
        return b - torch.outer(along, along @ b)

    return change


def without_layers(layers: set[int]) -> Callable[[Update], torch.Tensor | None]:
    """A change for `rewrite`: the updates of these decoder layers (from 0) add nothing."""
    return lambda update: torch.zeros_like(update.b) if update.layer in layers else None
