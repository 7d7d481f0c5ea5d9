"""Harm as one model's own late states tell it: probes that learn from contrast sets and decide on held-out prompts.

Knows states and samples; does not know who refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from undersong.mechanism.probe_scores import PointScores, ProbeDecisions, ProbeScores
from undersong.mechanism.probes import (
    ProbeSet,
    cross_validate_probe,
    held_out_point_scores,
    make_probe_decisions,
    predict_held_out,
    score_held_out,
)
from undersong.types import Sample

MAX_FOLDS = 5  # of the contrast sets, to choose a probe's penalty in; fewer where there are few behaviours
MIN_PROBE_BEHAVIORS = 6  # behaviours of a kind: three folds with two of each kind in one
PROBE_SEED = 0
EQUIVALENCE_MARGIN = 0.1  # loss of balanced accuracy that would matter

ContrastSamples = tuple[Sequence[Sample], Sequence[Sample]]  # harmful and harmless prompts, in this order everywhere
ContrastStates = tuple[np.ndarray, np.ndarray]  # theirs (layers + 1, prompts, dim)


def behavior_ids(contrast_samples: ContrastSamples, set_name: str) -> list[str]:
    """The independent unit of each prompt: its group where it has one, or itself, by a name that no other set has."""
    return [
        f"group {sample.group}" if sample.group is not None else f"{set_name} {kind} {sample.id}"
        for kind, samples in zip(("harmful", "harmless"), contrast_samples)
        for sample in samples
    ]


def harmful_labels(contrast_samples: ContrastSamples) -> list[bool]:
    """Is it harmful?"""
    return [kind == 0 for kind, samples in enumerate(contrast_samples) for _ in samples]


def harm_probe_decision_values(
    contrast: ContrastSamples, states: ContrastStates, held_out: ContrastSamples, held_out_states: ContrastStates
) -> np.ndarray | None:
    """(layers + 1, held-out prompts) decision values, above 0: harmful; None with too few behaviours to learn from.

    NaN at a layer that is constant over the contrast sets.  The outer split is the held-out set itself; the penalty is
    chosen by cross-validation over behaviours of the contrast sets.
    """
    fit_set = _make_probe_set(contrast, states, "contrast")
    if _min_behavior_count(fit_set) < MIN_PROBE_BEHAVIORS:
        return None
    return predict_held_out(
        fit_set, _make_probe_set(held_out, held_out_states, "held-out"), PROBE_SEED, _fold_count(fit_set)
    )


def nested_harm_probe_scores(contrast: ContrastSamples, states: ContrastStates, permutations: int) -> ProbeScores:
    """Of nested cross-validation in the contrast sets alone, every permutation of labels going through all of it."""
    fit_set = _make_probe_set(contrast, states, "contrast")
    return cross_validate_probe(
        fit_set, PROBE_SEED, folds=_fold_count(fit_set), permutations=permutations
    ).cross_validated


def _make_probe_set(contrast_samples: ContrastSamples, states: ContrastStates, name: str) -> ProbeSet:
    return ProbeSet(
        np.concatenate(states, axis=1), harmful_labels(contrast_samples), behavior_ids(contrast_samples, name), name
    )


def _min_behavior_count(fit_set: ProbeSet) -> int:
    """Behaviours of the kind that has fewer."""
    counts = Counter(label for _, label in set(zip(fit_set.clusters, fit_set.harmful)))
    return min(counts[True], counts[False])


def _fold_count(fit_set: ProbeSet) -> int:
    return min(MAX_FOLDS, _min_behavior_count(fit_set) // 2)


def harm_probe_scores(decisions: np.ndarray, contrast: ContrastSamples, held_out: ContrastSamples) -> ProbeScores:
    """What was decided, set beside the truth; `trained` of them is how many behaviours there were to learn from."""
    training_cluster_count = len(set(behavior_ids(contrast, "contrast")))
    return score_held_out(
        decisions, harmful_labels(held_out), behavior_ids(held_out, "held-out"), training_cluster_count, PROBE_SEED
    )


def harm_probe_decisions(decisions: np.ndarray, contrast: ContrastSamples, held_out: ContrastSamples) -> ProbeDecisions:
    """The same without any score, for the change between two models."""
    training_cluster_count = len(set(behavior_ids(contrast, "contrast")))
    return make_probe_decisions(
        decisions, harmful_labels(held_out), behavior_ids(held_out, "held-out"), training_cluster_count
    )


def harm_probe_point_scores(decisions: np.ndarray, held_out: ContrastSamples, permutations: int = 199) -> PointScores:
    """The same without intervals, for the many runs of a study."""
    return held_out_point_scores(
        decisions, harmful_labels(held_out), behavior_ids(held_out, "held-out"), PROBE_SEED, permutations
    )
