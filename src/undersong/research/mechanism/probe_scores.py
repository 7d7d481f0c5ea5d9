"""Probe accuracy and AUC with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from undersong.research.mechanism.directions import late_layers
from undersong.research.mechanism.probe_cross_validation import PromptBlocks, balanced_accuracy
from undersong.statistics.bootstrap import Interval, cluster_bootstrap_weights, percentile_interval
from undersong.statistics.multiple_testing import holm
from undersong.types import UndersongError

SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True)
class ProbeDecisions:
    """Decision values of probes on prompts that they were not fitted on.

    Attributes:
        blocks: The prompts' blocks.
        training_cluster_count: Number of clusters that each probe was fitted on.
        fold: Fold of each prompt, (prompts,).
        decisions: Decision values, (layers, prompts); above 0 means harmful.
    """

    blocks: PromptBlocks
    training_cluster_count: float
    fold: np.ndarray
    decisions: np.ndarray


@dataclass(frozen=True)
class ProbeScores(ProbeDecisions):
    """Scores of the decisions by layer, (layers,); NaN if there is no probe.

    AUC compares within a fold only. Probes are not refitted in a bootstrap draw: intervals are about these probes on
    other clusters.

    Attributes:
        balanced_accuracy: Balanced accuracy.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        auc: Area under the ROC curve.
        auc_low: Lower end of its 95 % interval.
        auc_high: Upper end of its 95 % interval.
        chance: Mean balanced accuracy under permuted labels.
        p_value: One-sided p value of the balanced accuracy.
        p_holm: The same, corrected over layers.
        late_accuracy: Mean balanced accuracy of the last quarter of layers, fixed in advance.
        late_chance: Its mean under permuted labels.
        late_p_value: Its one-sided p value.
    """

    balanced_accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    auc: np.ndarray
    auc_low: np.ndarray
    auc_high: np.ndarray
    chance: np.ndarray
    p_value: np.ndarray
    p_holm: np.ndarray
    late_accuracy: Interval
    late_chance: float
    late_p_value: float


def score_decisions(
    blocks: PromptBlocks,
    fold: np.ndarray,
    decisions_by_layer: Iterable[np.ndarray | None],
    labels: np.ndarray,
    training_cluster_count: float,
    draws: int,
    seed: np.random.SeedSequence,
) -> ProbeScores:
    """Score the decisions of probes.

    Args:
        blocks: The prompts' blocks.
        fold: Fold of each block, (blocks,).
        decisions_by_layer: Decisions of each layer, (prompts, labellings), or (prompts, 1) if the probe never saw these
            labels; None without a probe.
        labels: Labels, (prompts, labellings), the true ones first.
        training_cluster_count: Number of clusters that each probe was fitted on.
        draws: Number of bootstrap draws.
        seed: Seed of the bootstrap.
    """
    decisions, accuracy, late_accuracy = _accuracy_by_layer(blocks, decisions_by_layer, labels)
    late_mask = _late_mask(decisions)
    bootstrap_counts, block_accuracy = _bootstrap_counts(blocks, draws, seed), _block_accuracy(blocks, decisions)
    late_block_accuracy = (
        block_accuracy[late_mask].mean(axis=0) if late_mask.any() else np.full(len(blocks.cluster_index), np.nan)
    )
    mean_accuracy, low, high = _interval_columns(
        _clipped_interval(_mean_interval(blocks, layer, bootstrap_counts)) for layer in block_accuracy
    )
    auc, auc_low, auc_high = _interval_columns(
        _clipped_interval(_within_fold_auc(blocks, fold, layer, bootstrap_counts)) for layer in decisions
    )
    p_values = [_permutation_p_value(layer) for layer in accuracy]
    corrected_p_values = holm([None if np.isnan(value) else value for value in p_values])
    return ProbeScores(
        blocks=blocks,
        training_cluster_count=training_cluster_count,
        fold=fold[blocks.block_index],
        decisions=decisions,
        balanced_accuracy=mean_accuracy,
        low=low,
        high=high,
        auc=auc,
        auc_low=auc_low,
        auc_high=auc_high,
        chance=accuracy[:, 1:].mean(axis=1),
        p_value=np.array(p_values),
        p_holm=np.array([np.nan if value is None else value for value in corrected_p_values]),
        late_accuracy=_clipped_interval(_mean_interval(blocks, late_block_accuracy, bootstrap_counts)),
        late_chance=float(late_accuracy[1:].mean()),
        late_p_value=_permutation_p_value(late_accuracy),
    )


@dataclass(frozen=True)
class PointScores:
    """Scores without intervals: balanced accuracy of each layer (NaN without a probe) and over the late layers."""

    balanced_accuracy: np.ndarray
    late_accuracy: float
    late_p_value: float


def point_scores(
    blocks: PromptBlocks, decisions_by_layer: Iterable[np.ndarray | None], labels: np.ndarray
) -> PointScores:
    """Score the decisions of probes without intervals, for many models."""
    _, accuracy, late_accuracy = _accuracy_by_layer(blocks, decisions_by_layer, labels)
    return PointScores(accuracy[:, 0], float(late_accuracy[0]), _permutation_p_value(late_accuracy))


def _accuracy_by_layer(
    blocks: PromptBlocks, decisions_by_layer: Iterable[np.ndarray | None], labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisions (layers, prompts) on the true labels, balanced accuracy (layers, labellings), and its mean over late
    layers."""
    prompts, labellings = labels.shape
    true_label_decisions, accuracies = [], []  # the large labellings are held for one layer at a time
    for layer in decisions_by_layer:
        true_label_decisions.append(np.full(prompts, np.nan) if layer is None else layer[:, 0])
        missing = np.full(labellings, np.nan)
        accuracies.append(missing if layer is None else balanced_accuracy(layer, labels, blocks.prompt_weight))
    decisions, accuracy = np.array(true_label_decisions), np.array(accuracies)
    late_mask = _late_mask(decisions)
    return decisions, accuracy, accuracy[late_mask].mean(axis=0) if late_mask.any() else np.full(labellings, np.nan)


def late_difference(before: ProbeDecisions, after: ProbeDecisions, draws: int, seed: int) -> Interval:
    """Late balanced accuracy of `after` minus that of `before`, paired over clusters.

    Args:
        before: Decisions of the first model.
        after: Decisions of the second model.
        draws: Number of bootstrap draws.
        seed: Seed of the bootstrap.

    Raises:
        UndersongError: The decisions are not about the same prompts in the same folds, or have no late layer in common.
    """
    is_same_design = all(
        np.array_equal(a, b)
        for a, b in (
            (before.blocks.block_index, after.blocks.block_index),
            (before.blocks.harmful, after.blocks.harmful),
            (before.blocks.cluster_index, after.blocks.cluster_index),
            (before.fold, after.fold),
        )
    )
    if not is_same_design or before.decisions.shape != after.decisions.shape:
        raise UndersongError(
            "The probes before and after tuning do not have the same prompts, layers and folds; probe both models on "
            "one list of prompts, with one seed."
        )
    late_mask = _late_mask(before.decisions) & _late_mask(after.decisions)
    if not late_mask.any():
        raise UndersongError(
            "No late layer has a probe both before and after; check that its states vary over prompts."
        )
    accuracy_after, accuracy_before = (
        _block_accuracy(before.blocks, probe_decisions.decisions)[late_mask].mean(axis=0)
        for probe_decisions in (after, before)
    )
    widening = np.sqrt(1 + before.blocks.cluster_count / before.training_cluster_count)
    return _clipped_interval(
        _mean_interval(
            before.blocks, accuracy_after - accuracy_before, _bootstrap_counts(before.blocks, draws, seed), widening
        ),
        -1.0,
    )


def _late_mask(decisions: np.ndarray) -> np.ndarray:
    """Late layers that have a probe, (layers,) bool."""
    late_mask = np.zeros(len(decisions), dtype=bool)
    late_mask[late_layers(len(decisions) - 1)] = True
    return late_mask & ~np.isnan(decisions[:, 0])


def _block_accuracy(blocks: PromptBlocks, decisions: np.ndarray) -> np.ndarray:
    """Share of each block's prompts that are decided correctly, (layers, blocks); NaN without a probe."""
    correct = np.where(decisions == 0, 0.5, (decisions > 0) == blocks.harmful[blocks.block_index])
    return np.where(np.isnan(decisions), np.nan, correct) @ blocks.averaging_matrix.T


def _bootstrap_counts(blocks: PromptBlocks, draws: int, seed: int | np.random.SeedSequence) -> np.ndarray:
    """Counts (1 + draws, blocks) of each block: in the sample itself, then in each bootstrap draw of clusters."""
    cluster_counts = [
        np.ones(blocks.cluster_count, dtype=np.int64),
        *cluster_bootstrap_weights(range(blocks.cluster_count), draws, seed),
    ]
    return np.array(cluster_counts)[:, blocks.cluster_index].astype(np.float64)


def _mean_interval(
    blocks: PromptBlocks, values: np.ndarray, bootstrap_counts: np.ndarray, widening: float = 1.0
) -> Interval:
    """Interval of the average of the mean over harmful and the mean over benign blocks; `values` is (blocks,)."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw without blocks of a kind has no value
        means = [
            (bootstrap_counts[:, label_blocks] @ values[label_blocks]) / bootstrap_counts[:, label_blocks].sum(axis=1)
            for label_blocks in _blocks_by_label(blocks)
        ]
    return _widened_interval(blocks, (means[0] + means[1]) / 2, widening)


def _blocks_by_label(blocks: PromptBlocks) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(blocks.harmful), np.flatnonzero(~blocks.harmful)


def _within_fold_auc(
    blocks: PromptBlocks, fold: np.ndarray, decisions: np.ndarray, bootstrap_counts: np.ndarray
) -> Interval:
    """Probability that a harmful block lies above a benign one of its fold; probes of other folds have other scales."""
    if np.isnan(decisions[0]):
        return Interval(float("nan"), None, None)
    above = (decisions[:, None] > decisions) + 0.5 * (decisions[:, None] == decisions)
    averaging_matrix = blocks.averaging_matrix
    comparable = (blocks.harmful[:, None] & ~blocks.harmful & (fold[:, None] == fold)).astype(np.float64)
    wins = comparable * (averaging_matrix @ above @ averaging_matrix.T)
    with np.errstate(invalid="ignore"):
        return _widened_interval(
            blocks,
            ((bootstrap_counts @ wins) * bootstrap_counts).sum(axis=1)
            / ((bootstrap_counts @ comparable) * bootstrap_counts).sum(axis=1),
        )


def _widened_interval(blocks: PromptBlocks, value_and_draws: np.ndarray, widening: float = 1.0) -> Interval:
    """Percentile interval from the value and its draws (1 + draws,), stretched, and never inside the rule of three.

    With `units` independent clusters and no event, a share of up to 1 - 0.025^(1 / units) is still possible.
    """
    interval = percentile_interval(
        float(value_and_draws[0]), value_and_draws[1:], blocks.cluster_count, 1 - SIGNIFICANCE_LEVEL
    )
    if interval.low is None or interval.high is None:
        return interval
    units = min(blocks.cluster_count, 2 * min(len(label_blocks) for label_blocks in _blocks_by_label(blocks)))
    min_half_width = 1 - (SIGNIFICANCE_LEVEL / 2) ** (1 / units)
    lower_half_width, upper_half_width = (
        max(min_half_width, widening * half_width)
        for half_width in (interval.value - interval.low, interval.high - interval.value)
    )
    return Interval(interval.value, interval.value - lower_half_width, interval.value + upper_half_width)


def _clipped_interval(estimate: Interval, lower_bound: float = 0.0) -> Interval:
    """Clip an interval: a share ends at 0, a difference at -1, and either at 1."""
    if estimate.low is None or estimate.high is None:
        return estimate
    return Interval(estimate.value, max(lower_bound, estimate.low), min(1.0, estimate.high))


def _interval_columns(estimates: Iterable[Interval]) -> np.ndarray:
    """Value, low and high of each layer, (3, layers); NaN for None."""
    return np.array([(estimate.value, estimate.low, estimate.high) for estimate in estimates], dtype=np.float64).T


def _permutation_p_value(accuracy: np.ndarray) -> float:
    """P value (one-sided) from accuracies (labellings,), the true one first and counted (Ojala and Garriga 2010)."""
    return float("nan") if np.isnan(accuracy[0]) else float((accuracy >= accuracy[0] - 1e-9).mean())
