"""Is the direction the cause?  Taken out of the base, refusals should go; put into the tuned model, they should come.

Layer choice by bypass, induce and divergence after Arditi et al. 2024 (arXiv 2406.11717, appendix C), on prompts that
no result is reported on.  Random directions of the same length say what any such change would do.
Knows directions and models; judges no reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.mechanism.directions import Direction
from undersong.mechanism.interventions import Change, ablation, addition
from undersong.mechanism.odds import Changes, moved, refusal_odds
from undersong.types import Prompt

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel

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


def out_of(direction: Direction, place: int, layers: int) -> Changes:
    """The direction of one place taken out everywhere."""
    taken: Mapping[int, Change] = dict.fromkeys(range(layers + 1), ablation(direction.unit[place]))
    return lambda _rows: taken


def into(direction: Direction, place: int, strength: float) -> Changes:
    """The direction of one place put in there; strength 1: as much as the two kinds of prompts are apart."""
    put: Mapping[int, Change] = {place: addition(strength * 2 * direction.half[place] * direction.unit[place])}
    return lambda _rows: put


def candidates(
    model: AudioModel,
    direction: Direction,
    harmful: Sequence[Prompt],
    harmless: Sequence[Prompt],
    tokens: Sequence[int],
) -> list[Candidate]:
    """Every place that has a direction, tried on the base with prompts for choosing."""
    found = []
    for place in np.flatnonzero(np.isfinite(direction.half)).tolist():
        taken = out_of(direction, place, model.layers)
        bypass = float(refusal_odds(model, harmful, tokens, taken).mean())
        induce = float(refusal_odds(model, harmless, tokens, into(direction, place, 1.0)).mean())
        divergence = float(moved(model, harmless, taken).mean())
        found.append(Candidate(place, bypass, induce, divergence))
    return found


def best(found: Sequence[Candidate], layers: int, divergence: float = DIVERGENCE, depth: float = DEPTH) -> int | None:
    """The place whose loss bypasses refusal most, of those that induce it, lie no deeper than `depth` of the layers,
    and move harmless prompts by less than `divergence`; None where none does."""
    fit = [one for one in found if one.induce > 0 and one.divergence < divergence and one.place <= depth * layers]
    return min(fit, key=lambda one: one.bypass).place if fit else None


def random_directions(direction: Direction, count: int, seed: int) -> list[Direction]:
    """Directions of random orientation, the same lengths and the same middle."""
    rng, shape = np.random.default_rng(seed), direction.unit.shape
    made = []
    for _ in range(count):
        unit = rng.normal(size=shape)
        made.append(Direction(unit / np.linalg.norm(unit, axis=1, keepdims=True), direction.middle, direction.half))
    return made


def beats_random(effect: float, random: Sequence[float]) -> float:
    """One-sided p of an effect among those of random directions: the share that is at least as large, its own one
    counted (Phipson and Smyth 2010)."""
    return (1 + sum(other >= effect for other in random)) / (1 + len(random))
