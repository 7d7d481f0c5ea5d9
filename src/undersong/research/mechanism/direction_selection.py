"""Selection of the refusal direction's layer by bypass, induce and KL scores (Arditi et al. 2024, appendix C), and
random directions as a control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.models.interventions import Site, SublayerOutputs, ablation, addition
from undersong.predictors.refusal_score import BatchInterventions, first_token_kl, refusal_scores
from undersong.research.mechanism.directions import RefusalDirection
from undersong.settings.defaults import MAX_DEPTH, MAX_KL
from undersong.types import Prompt

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel


@dataclass(frozen=True, slots=True)
class LayerCandidate:
    """Scores of the direction at one layer.

    Attributes:
        layer: The layer; 0 is the decoder's input.
        bypass: Mean refusal log odds of harmful prompts with the direction ablated.
        induce: Mean refusal log odds of benign prompts with the direction added.
        divergence: KL divergence of the first token on benign prompts under ablation, in nats.
    """

    layer: int
    bypass: float
    induce: float
    divergence: float


def select_direction(
    candidates: Sequence[LayerCandidate],
    layer_count: int,
    max_divergence: float = MAX_KL,
    max_depth: float = MAX_DEPTH,
) -> int | None:
    """Select the layer whose ablation bypasses refusal most.

    Eligible layers induce refusal when added, lie above the depth limit, and change benign prompts by less than the
    divergence limit. No limit makes the last layer eligible: its direction is one of words, not of the decision, and
    ablating it edits the logits.

    Args:
        candidates: Scores of each layer.
        layer_count: Number of layers of the decoder.
        max_divergence: Largest divergence on benign prompts, in nats.
        max_depth: Limit of the depth as a share of the layers; a layer at the limit is not eligible.

    Returns:
        The layer, or None if no candidate is eligible.
    """
    eligible = [
        candidate
        for candidate in candidates
        if candidate.induce > 0 and candidate.divergence < max_divergence and candidate.layer < max_depth * layer_count
    ]
    return min(eligible, key=lambda candidate: candidate.bypass).layer if eligible else None


HiddenStatePair = tuple[np.ndarray, np.ndarray]  # harmful and benign prompts, (layers, prompts, dim) each
ClusterPair = tuple[Sequence[str], Sequence[str]]


def ablate_direction(direction: RefusalDirection, layer: int, layer_count: int) -> BatchInterventions:
    """Interventions that ablate the direction of one layer wherever the residual stream is read or written.

    The sites are those of the published code (github.com/andyrdt/refusal_direction, `get_all_direction_ablation_hooks`
    in pipeline/utils/hook_utils.py): the input of every block, and the outputs of its attention and its MLP. So no
    module sees or writes the direction, which equals orthogonalizing all weights that write to the residual stream
    (section 4.1 of the paper).
    """
    sites: list[Site] = [*range(layer_count), *(SublayerOutputs(number + 1) for number in range(layer_count))]
    ablations = dict.fromkeys(sites, ablation(direction.unit[layer]))
    return lambda _rows: ablations


def add_direction(direction: RefusalDirection, layer: int, strength: float) -> BatchInterventions:
    """Intervention that adds the direction at its layer; strength 1 is the distance between both kinds of prompts."""
    vector = strength * 2 * direction.half_distance[layer] * direction.unit[layer]
    return lambda _rows: {layer: addition(vector)}


def evaluate_candidates(
    model: AudioModel,
    direction: RefusalDirection,
    harmful: Sequence[Prompt],
    benign: Sequence[Prompt],
    tokens: Sequence[int],
) -> list[LayerCandidate]:
    """Score the direction at every layer that has one.

    Args:
        model: The base model.
        direction: Directions of all layers.
        harmful: Harmful prompts for choosing.
        benign: Benign prompts for choosing.
        tokens: Refusal tokens.
    """
    evaluated = []
    for layer in np.flatnonzero(np.isfinite(direction.half_distance)).tolist():
        ablated = ablate_direction(direction, layer, model.layers)
        bypass = float(refusal_scores(model, harmful, tokens, ablated).mean())
        induce = float(refusal_scores(model, benign, tokens, add_direction(direction, layer, 1.0)).mean())
        divergence = float(first_token_kl(model, benign, ablated).mean())
        evaluated.append(LayerCandidate(layer, bypass, induce, divergence))
    return evaluated


def random_directions(
    direction: RefusalDirection, states: HiddenStatePair, clusters: ClusterPair, count: int, seed: int
) -> list[RefusalDirection]:
    """Draw directions that chance alone would have fitted, with the same lengths and midpoints.

    Each is a difference of means of the centered states, with random signs for whole clusters. So it leans where the
    noise of a fitted direction leans, unlike directions of uniform orientation. In 800 decoders with nothing planted, a
    fitted direction beat 19 of these in .068 (ablated) and .040 (added) of cases, at a level of .05.

    Args:
        direction: The fitted direction.
        states: Hidden states it was fitted on.
        clusters: Cluster of each prompt.
        count: Number of directions.
        seed: Seed of the signs.
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
        directions.append(RefusalDirection(unit, direction.midpoint, direction.half_distance))
    return directions


def _cluster_sums(states: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """Sums of each cluster's centered states, (layers, clusters, dim)."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    centered = states.astype(np.float64) - states.mean(axis=1, dtype=np.float64, keepdims=True)
    membership = np.zeros((len(names), states.shape[1]))
    membership[index, np.arange(states.shape[1])] = 1.0
    return np.einsum("cn,lnd->lcd", membership, centered)


def random_direction_p_value(effect: float, random_effects: Sequence[float]) -> float:
    """P value (one-sided) of an effect among those of random directions, the effect itself counted (Phipson and Smyth
    2010)."""
    return (1 + sum(random_effect >= effect for random_effect in random_effects)) / (1 + len(random_effects))
