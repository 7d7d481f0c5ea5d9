"""Which place's direction is called the cause of a refusal, from what was tried of every place.

By bypass, induce and divergence after Arditi et al. 2024 (arXiv 2406.11717, appendix C).  Knows numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DIVERGENCE = 0.1  # most nats that taking the direction out may move what is said first to harmless prompts
DEPTH = 0.8  # of the layers: a direction at the very end is one of words, not of the decision


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place: mean refusal log odds of harmful prompts without its direction (`bypass`), of harmless ones with it
    (`induce`), and how far the first is felt on harmless prompts (`divergence`, nats)."""

    place: int
    bypass: float
    induce: float
    divergence: float


def best(found: Sequence[Candidate], layers: int, divergence: float = DIVERGENCE, depth: float = DEPTH) -> int | None:
    """The place whose loss bypasses refusal most, of those that induce it, lie no deeper than `depth` of the layers,
    and move harmless prompts by less than `divergence`; None where none does."""
    fit = [one for one in found if one.induce > 0 and one.divergence < divergence and one.place <= depth * layers]
    return min(fit, key=lambda one: one.bypass).place if fit else None
