"""Linear probes for harmfulness by layer (Alain and Bengio 2016): cross-validated on contrast sets, or fitted on them
and scored on held-out prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.research.mechanism.probe_cross_validation import (
    PromptBlocks,
    assign_folds,
    held_out_decisions,
    make_blocks,
    nested_decisions,
    permute_labels,
)
from undersong.research.mechanism.probe_scores import (
    SIGNIFICANCE_LEVEL,
    PointScores,
    ProbeDecisions,
    ProbeScores,
    point_scores,
    score_decisions,
)
from undersong.types import Sample, UndersongError

NOTE_CONSTANT = "Layers {layers} are constant over the prompts and have no probe."
NOTE_FEW = "{permutations} permutations cannot tell one of {layers} layers after Holm's correction; it takes {needed}."


@dataclass(frozen=True)
class ProbeSet:
    """Labelled hidden states for a probe.

    Attributes:
        states: Hidden states at the last prompt token, (layers + 1, prompts, dim); layer 0 is the decoder's input.
        harmful: Labels, (prompts,).
        clusters: Cluster of each prompt: a behavior with its voices, or a matched pair.
        name: Name in error messages.
    """

    states: np.ndarray
    harmful: Sequence[bool] | np.ndarray
    clusters: Sequence[Hashable]
    name: str


@dataclass(frozen=True)
class ProbeResult:
    """Scores of cross-validated probes, and of probes fitted on all of the set and scored on a held-out set.

    `design` says how labels were permuted: `between` clusters (each has one label), `matched` (each has both, and its
    sides were swapped), or `mixed`.
    """

    design: str
    cross_validated: ProbeScores
    held_out: ProbeScores | None
    notes: tuple[str, ...] = ()


def cross_validate_probe(
    fit_set: ProbeSet,
    seed: int,
    held_out: ProbeSet | None = None,
    folds: int = 5,
    permutations: int = 999,
    draws: int = 1000,
) -> ProbeResult:
    """Cross-validate probes by cluster, nested; with `held_out`, also fit on all prompts and score there.

    Args:
        fit_set: Prompts to fit on.
        seed: Seed of folds, permutations and bootstrap.
        held_out: Prompts to score on, with clusters of their own.
        folds: Number of outer folds, at least 3.
        permutations: Number of label permutations.
        draws: Number of bootstrap draws.

    Raises:
        UndersongError: States are not finite, shapes do not fit, a label has fewer than 2 x folds clusters, or a
            cluster is in both sets.
    """
    blocks = _check_foldable(fit_set, folds, permutations)
    if held_out is not None:
        _check_disjoint(fit_set, held_out)
    fold_seed, label_seed, draw_seed = np.random.SeedSequence(seed).spawn(3)
    fold = assign_folds(blocks, folds, np.random.default_rng(fold_seed))
    labels = permute_labels(blocks, fold, permutations, np.random.default_rng(label_seed))[blocks.block_index]
    decisions_by_layer = (
        nested_decisions(layer, labels, blocks.prompt_weight, fold[blocks.block_index]) if _varies(layer) else None
        for layer in fit_set.states
    )
    scores = score_decisions(
        blocks, fold, decisions_by_layer, labels, blocks.cluster_count * (1 - 1 / folds), draws, draw_seed
    )
    held_out_scores = None
    if held_out is not None:
        decisions = predict_held_out(fit_set, held_out, seed, folds)
        held_out_scores = score_held_out(
            decisions, held_out.harmful, held_out.clusters, blocks.cluster_count, seed, permutations, draws
        )
    return ProbeResult(blocks.design, scores, held_out_scores, _notes(fit_set, permutations))


def predict_held_out(fit_set: ProbeSet, held_out: ProbeSet, seed: int, folds: int = 5) -> np.ndarray:
    """Decision values (layers + 1, held-out prompts) of probes fitted on all of `fit_set`; above 0 means harmful.

    NaN at a layer that is constant over `fit_set`. Penalties are chosen by cross-validation within `fit_set`.

    Args:
        fit_set: Prompts to fit on.
        held_out: Prompts to decide on.
        seed: Seed of the folds.
        folds: Number of folds.

    Raises:
        UndersongError: As `cross_validate_probe`.
    """
    blocks = _check_foldable(fit_set, folds)
    _check_disjoint(fit_set, held_out)
    _check_probe_set(held_out, min_clusters=1)
    (fold_seed,) = np.random.SeedSequence(seed).spawn(1)
    fold = assign_folds(blocks, folds, np.random.default_rng(fold_seed))[blocks.block_index]
    missing = np.full(held_out.states.shape[1], np.nan)
    return np.array(
        [
            held_out_decisions(layer, blocks.harmful[blocks.block_index], blocks.prompt_weight, fold, held_out_layer)
            if _varies(layer)
            else missing
            for layer, held_out_layer in zip(fit_set.states, held_out.states)
        ]
    )


def score_held_out(
    decisions: np.ndarray,
    harmful: Sequence[bool] | np.ndarray,
    clusters: Sequence[Hashable],
    training_cluster_count: int,
    seed: int,
    permutations: int = 999,
    draws: int = 1000,
) -> ProbeScores:
    """Score decisions of `predict_held_out`; p values permute the held-out labels and keep the probe.

    Args:
        decisions: Decision values, (layers, prompts).
        harmful: Labels, (prompts,).
        clusters: Cluster of each prompt.
        training_cluster_count: Number of clusters that the probe was fitted on.
        seed: Seed of permutations and bootstrap.
        permutations: Number of label permutations.
        draws: Number of bootstrap draws.
    """
    blocks, labels = _permuted_labels(harmful, clusters, seed, permutations)
    fold = np.zeros(len(blocks.cluster_index), dtype=np.int64)
    draw_seed = np.random.SeedSequence(seed).spawn(5)[4]
    return score_decisions(
        blocks, fold, _decisions_by_layer(decisions), labels, training_cluster_count, draws, draw_seed
    )


def make_probe_decisions(
    decisions: np.ndarray,
    harmful: Sequence[bool] | np.ndarray,
    clusters: Sequence[Hashable],
    training_cluster_count: int,
) -> ProbeDecisions:
    """Decisions of `predict_held_out` as input of `late_difference`.

    Args:
        decisions: Decision values, (layers, prompts).
        harmful: Labels, (prompts,).
        clusters: Cluster of each prompt.
        training_cluster_count: Number of clusters that the probe was fitted on.
    """
    blocks = make_blocks(harmful, clusters)
    return ProbeDecisions(blocks, training_cluster_count, np.zeros(len(blocks.block_index), dtype=np.int64), decisions)


def held_out_point_scores(
    decisions: np.ndarray,
    harmful: Sequence[bool] | np.ndarray,
    clusters: Sequence[Hashable],
    seed: int,
    permutations: int = 999,
) -> PointScores:
    """Score decisions of `predict_held_out` without intervals, for many models.

    Args:
        decisions: Decision values, (layers, prompts).
        harmful: Labels, (prompts,).
        clusters: Cluster of each prompt.
        seed: Seed of the permutations.
        permutations: Number of label permutations.
    """
    blocks, labels = _permuted_labels(harmful, clusters, seed, permutations)
    return point_scores(blocks, _decisions_by_layer(decisions), labels)


def _permuted_labels(
    harmful: Sequence[bool] | np.ndarray, clusters: Sequence[Hashable], seed: int, permutations: int
) -> tuple[PromptBlocks, np.ndarray]:
    """Held-out blocks, and labels (prompts, 1 + permutations)."""
    blocks = make_blocks(harmful, clusters)
    single_fold = np.zeros(len(blocks.cluster_index), dtype=np.int64)
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(4)[3])
    return blocks, permute_labels(blocks, single_fold, permutations, rng)[blocks.block_index]


def _decisions_by_layer(decisions: np.ndarray) -> Iterator[np.ndarray | None]:
    return (None if np.isnan(layer[0]) else layer[:, None] for layer in decisions)


def _check_foldable(fit_set: ProbeSet, folds: int, permutations: int = 1) -> PromptBlocks:
    if folds < 3 or permutations < 1:
        raise UndersongError(
            f"{folds} folds and {permutations} permutations are too few; use at least 3 folds and 1 permutation."
        )
    return _check_probe_set(fit_set, min_clusters=2 * folds)


def _check_probe_set(probe_set: ProbeSet, min_clusters: int) -> PromptBlocks:
    states, prompts = probe_set.states, len(probe_set.harmful)
    if states.ndim != 3 or states.shape[1] != prompts or len(probe_set.clusters) != prompts:
        raise UndersongError(
            f"The {probe_set.name} set has states of shape {states.shape}, {prompts} labels and "
            f"{len(probe_set.clusters)} clusters; give states (layers, prompts, dim), "
            "and one label and cluster per prompt."
        )
    for number, layer in enumerate(states):
        if not np.isfinite(layer).all():
            raise UndersongError(
                f"The {probe_set.name} set has states that are not finite at layer {number}; check the model's dtype."
            )
    if prompts == 0 or not np.isin(probe_set.harmful, (0, 1)).all():
        raise UndersongError(
            f"The {probe_set.name} set has no prompts, or labels other than harmful or not; fix its labels."
        )
    blocks = make_blocks(probe_set.harmful, probe_set.clusters)
    for kind, label in (("harmful", True), ("benign", False)):
        clusters = int((blocks.harmful == label).sum())
        if clusters < min_clusters:
            raise UndersongError(
                f"The {probe_set.name} set has {clusters} clusters with {kind} prompts and needs at least "
                f"{min_clusters}; add behaviors, or use fewer folds (at least 3)."
            )
    return blocks


def _check_disjoint(fit_set: ProbeSet, held_out: ProbeSet) -> None:
    if held_out.states.shape[::2] != fit_set.states.shape[::2]:
        raise UndersongError(
            f"The {held_out.name} set has states of shape {held_out.states.shape} and the {fit_set.name} set of "
            f"{fit_set.states.shape}; use states of one model."
        )
    for name in sorted(set(fit_set.clusters) & set(held_out.clusters), key=str):
        raise UndersongError(f"Cluster {name} is in both probe sets; remove it from one, or the probe has seen it.")


def _varies(layer: np.ndarray) -> bool:
    return bool((layer != layer[0]).any())


def _notes(fit_set: ProbeSet, permutations: int) -> tuple[str, ...]:
    constant = [number for number, layer in enumerate(fit_set.states) if not _varies(layer)]
    probed = len(fit_set.states) - len(constant)
    needed = round(probed / SIGNIFICANCE_LEVEL) - 1  # the smallest p value is 1 / (permutations + 1), times the layers
    few_permutations_note = (
        NOTE_FEW.format(permutations=permutations, layers=probed, needed=needed) if permutations < needed else ""
    )
    constant_layers_note = NOTE_CONSTANT.format(layers=", ".join(map(str, constant))) if constant else ""
    return tuple(note for note in (constant_layers_note, few_permutations_note) if note)


MAX_FOLDS = 5  # folds of the contrast sets for choosing a probe's penalty; fewer if there are few behaviors
MIN_PROBE_BEHAVIORS = 6  # behaviors per kind: three folds with two of each kind
PROBE_SEED = 0

ContrastSamples = tuple[Sequence[Sample], Sequence[Sample]]  # harmful and benign prompts, in this order
ContrastStates = tuple[np.ndarray, np.ndarray]  # their hidden states, (layers + 1, prompts, dim)


def behavior_ids(contrast_samples: ContrastSamples, set_name: str) -> list[str]:
    """Independent unit of each prompt: its group, or else the prompt itself, with a name that no other set has."""
    return [
        f"group {sample.group}" if sample.group is not None else f"{set_name} {kind} {sample.id}"
        for kind, samples in zip(("harmful", "benign"), contrast_samples)
        for sample in samples
    ]


def harmful_labels(contrast_samples: ContrastSamples) -> list[bool]:
    """Label of each prompt: True if it is harmful."""
    return [kind == 0 for kind, samples in enumerate(contrast_samples) for _ in samples]


def harm_probe_decision_values(
    contrast: ContrastSamples, states: ContrastStates, held_out: ContrastSamples, held_out_states: ContrastStates
) -> np.ndarray | None:
    """Decision values (layers + 1, held-out prompts) of harm probes; above 0 means harmful.

    NaN at a layer that is constant over the contrast sets. The outer split is the held-out set itself; the penalty is
    chosen by cross-validation over behaviors of the contrast sets.

    Args:
        contrast: Contrast sets to fit on.
        states: Their hidden states.
        held_out: Held-out sets.
        held_out_states: Their hidden states.

    Returns:
        The decision values, or None if there are too few behaviors to learn from.
    """
    fit_set = _make_probe_set(contrast, states, "contrast")
    if _min_behavior_count(fit_set) < MIN_PROBE_BEHAVIORS:
        return None
    return predict_held_out(
        fit_set, _make_probe_set(held_out, held_out_states, "held-out"), PROBE_SEED, _fold_count(fit_set)
    )


def nested_harm_probe_scores(contrast: ContrastSamples, states: ContrastStates, permutations: int) -> ProbeScores:
    """Scores of nested cross-validation within the contrast sets; every permutation of labels goes through all of
    it."""
    fit_set = _make_probe_set(contrast, states, "contrast")
    return cross_validate_probe(
        fit_set, PROBE_SEED, folds=_fold_count(fit_set), permutations=permutations
    ).cross_validated


def _make_probe_set(contrast_samples: ContrastSamples, states: ContrastStates, name: str) -> ProbeSet:
    return ProbeSet(
        np.concatenate(states, axis=1), harmful_labels(contrast_samples), behavior_ids(contrast_samples, name), name
    )


def _min_behavior_count(fit_set: ProbeSet) -> int:
    """Number of behaviors of the rarer kind."""
    counts = Counter(label for _, label in set(zip(fit_set.clusters, fit_set.harmful)))
    return min(counts[True], counts[False])


def _fold_count(fit_set: ProbeSet) -> int:
    return min(MAX_FOLDS, _min_behavior_count(fit_set) // 2)


def harm_probe_scores(decisions: np.ndarray, contrast: ContrastSamples, held_out: ContrastSamples) -> ProbeScores:
    """Score decisions of harm probes on the held-out sets."""
    training_cluster_count = len(set(behavior_ids(contrast, "contrast")))
    return score_held_out(
        decisions, harmful_labels(held_out), behavior_ids(held_out, "held-out"), training_cluster_count, PROBE_SEED
    )


def harm_probe_decisions(decisions: np.ndarray, contrast: ContrastSamples, held_out: ContrastSamples) -> ProbeDecisions:
    """Decisions of harm probes without scores, for the change between two models."""
    training_cluster_count = len(set(behavior_ids(contrast, "contrast")))
    return make_probe_decisions(
        decisions, harmful_labels(held_out), behavior_ids(held_out, "held-out"), training_cluster_count
    )


def harm_probe_point_scores(decisions: np.ndarray, held_out: ContrastSamples, permutations: int = 199) -> PointScores:
    """Score decisions of harm probes without intervals, for the many runs of a study."""
    return held_out_point_scores(
        decisions, harmful_labels(held_out), behavior_ids(held_out, "held-out"), PROBE_SEED, permutations
    )
