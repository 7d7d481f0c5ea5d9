"""Which place's direction is called the cause of a refusal, from what was tried of every place.

By bypass, induce and divergence after Arditi et al. 2024 (arXiv 2406.11717, appendix C).  Knows numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_DIVERGENCE = 0.1  # most nats that taking the direction out may move what is said first to harmless prompts
MAX_DEPTH = 0.8  # of the layers: a direction at the very end is one of words, not of the decision


@dataclass(frozen=True, slots=True)
class LayerCandidate:
    """One place: mean refusal log odds of harmful prompts without its direction (`bypass`), of harmless ones with it
    (`induce`), and how far the first is felt on harmless prompts (`divergence`, nats)."""

    place: int
    bypass: float
    induce: float
    divergence: float


def select_direction(
    candidates: Sequence[LayerCandidate],
    layer_count: int,
    max_divergence: float = MAX_DIVERGENCE,
    max_depth: float = MAX_DEPTH,
) -> int | None:
    """The place whose loss bypasses refusal most, of those that induce it, lie no deeper than `depth` of the layers,
    and move harmless prompts by less than `divergence`; None where none does."""
    eligible = [
        candidate
        for candidate in candidates
        if candidate.induce > 0 and candidate.divergence < max_divergence and candidate.place <= max_depth * layer_count
    ]
    return min(eligible, key=lambda candidate: candidate.bypass).place if eligible else None
