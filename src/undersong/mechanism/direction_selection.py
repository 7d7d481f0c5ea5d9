"""Selection of the refusal direction's layer by bypass, induce and KL scores (Arditi et al.

2024, appendix C), and random directions as a control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.mechanism.directions import RefusalDirection
from undersong.mechanism.interventions import Intervention, ablation, addition
from undersong.mechanism.refusal_score import BatchInterventions, first_token_kl, refusal_scores
from undersong.study.defaults import MAX_DEPTH, MAX_KL
from undersong.types import Prompt

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel


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
    max_divergence: float = MAX_KL,
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


HiddenStatePair = tuple[np.ndarray, np.ndarray]  # of harmful and of harmless prompts (layers, prompts, dim)
ClusterPair = tuple[Sequence[str], Sequence[str]]


def ablate_direction(direction: RefusalDirection, layer: int, layer_count: int) -> BatchInterventions:
    """The direction of one place taken out everywhere."""
    ablations: Mapping[int, Intervention] = dict.fromkeys(range(layer_count + 1), ablation(direction.unit[layer]))
    return lambda _rows: ablations


def add_direction(direction: RefusalDirection, layer: int, strength: float) -> BatchInterventions:
    """The direction of one place put in there; strength 1: as much as the two kinds of prompts are apart."""
    additions: Mapping[int, Intervention] = {
        layer: addition(strength * 2 * direction.half[layer] * direction.unit[layer])
    }
    return lambda _rows: additions


def evaluate_candidates(
    model: AudioModel,
    direction: RefusalDirection,
    harmful: Sequence[Prompt],
    benign: Sequence[Prompt],
    tokens: Sequence[int],
) -> list[LayerCandidate]:
    """Every place that has a direction, tried on the base with prompts for choosing."""
    evaluated = []
    for layer in np.flatnonzero(np.isfinite(direction.half)).tolist():
        ablated = ablate_direction(direction, layer, model.layers)
        bypass = float(refusal_scores(model, harmful, tokens, ablated).mean())
        induce = float(refusal_scores(model, benign, tokens, add_direction(direction, layer, 1.0)).mean())
        divergence = float(first_token_kl(model, benign, ablated).mean())
        evaluated.append(LayerCandidate(layer, bypass, induce, divergence))
    return evaluated


def random_directions(
    direction: RefusalDirection, states: HiddenStatePair, clusters: ClusterPair, count: int, seed: int
) -> list[RefusalDirection]:
    """Directions that chance alone would have fitted, of the same lengths and the same middle.

    `states` (harmful, harmless), each (layers, prompts, dim), are what `direction` was fitted on.  Every one is the
    difference of the means of what is left of them without their own means, the signs of whole clusters drawn: so it
    leans where the noise of a fitted direction leans, as directions of uniform orientation do not.  Over 800 decoders
    with nothing planted a fitted one beats 19 of them in .068 (taken out) and .040 (put in), at a level of .05.
    """
    rng = np.random.default_rng(seed)
    cluster_sums = [_cluster_sums(kind_states, kind_clusters) for kind_states, kind_clusters in zip(states, clusters)]
    directions = []
    for _ in range(count):
        noise = [
            np.einsum("lcd,c->ld", sums, rng.choice((-1.0, 1.0), sums.shape[1])) / sums.shape[1]
            for sums in cluster_sums
        ]
        difference = noise[0] - noise[1]
        with np.errstate(invalid="ignore"):
            unit = difference / np.linalg.norm(difference, axis=1, keepdims=True)
        directions.append(RefusalDirection(unit, direction.middle, direction.half))
    return directions


def _cluster_sums(states: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """(layers, clusters, dim): sums of each cluster's centred states."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    centered = states.astype(np.float64) - states.mean(axis=1, dtype=np.float64, keepdims=True)
    membership = np.zeros((len(names), states.shape[1]))
    membership[index, np.arange(states.shape[1])] = 1.0
    return np.einsum("cn,lnd->lcd", membership, centered)


def random_direction_p_value(effect: float, random_effects: Sequence[float]) -> float:
    """One-sided p of an effect among those of random directions: the share that is at least as large, its own one
    counted (Phipson and Smyth 2010)."""
    return (1 + sum(random_effect >= effect for random_effect in random_effects)) / (1 + len(random_effects))
