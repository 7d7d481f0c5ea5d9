"""Is the direction the cause?  Taken out of the base, refusals should go; put into the tuned model, they should come.

Layer choice by bypass, induce and divergence after Arditi et al. 2024 (arXiv 2406.11717, appendix C), on prompts that
no result is reported on.  Directions of chance say what any such change would do.
Knows directions and models; judges no reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from undersong.mechanism.choosing import Candidate
from undersong.mechanism.directions import Direction
from undersong.mechanism.interventions import Change, ablation, addition
from undersong.mechanism.odds import Changes, moved, refusal_odds
from undersong.types import Prompt

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel

States = tuple[np.ndarray, np.ndarray]  # of harmful and of harmless prompts (layers, prompts, dim)
Clusters = tuple[Sequence[str], Sequence[str]]


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


def random_directions(
    direction: Direction, states: States, clusters: Clusters, count: int, seed: int
) -> list[Direction]:
    """Directions that chance alone would have fitted, of the same lengths and the same middle.

    `states` (harmful, harmless), each (layers, prompts, dim), are what `direction` was fitted on.  Every one is the
    difference of the means of what is left of them without their own means, the signs of whole clusters drawn: so it
    leans where the noise of a fitted direction leans, as directions of uniform orientation do not.  Over 800 decoders
    with nothing planted a fitted one beats 19 of them in .068 (taken out) and .040 (put in), at a level of .05.
    """
    rng = np.random.default_rng(seed)
    units = [_units(side, names) for side, names in zip(states, clusters)]
    made = []
    for _ in range(count):
        noise = [np.einsum("lcd,c->ld", unit, rng.choice((-1.0, 1.0), unit.shape[1])) / unit.shape[1] for unit in units]
        drawn = noise[0] - noise[1]
        with np.errstate(invalid="ignore"):
            unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        made.append(Direction(unit, direction.middle, direction.half))
    return made


def _units(states: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """(layers, clusters, dim): sums of each cluster's centred states."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    centred = states.astype(np.float64) - states.mean(axis=1, dtype=np.float64, keepdims=True)
    belongs = np.zeros((len(names), states.shape[1]))
    belongs[index, np.arange(states.shape[1])] = 1.0
    return np.einsum("cn,lnd->lcd", belongs, centred)


def beats_random(effect: float, random: Sequence[float]) -> float:
    """One-sided p of an effect among those of random directions: the share that is at least as large, its own one
    counted (Phipson and Smyth 2010)."""
    return (1 + sum(other >= effect for other in random)) / (1 + len(random))
