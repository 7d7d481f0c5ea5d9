"""Does an axis tell harmful from ordinary texts? ROC area of held-out harm against held-out ordinary items."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from undersong.statistics.auc import probability_below, rank_positions, value_shares
from undersong.statistics.bootstrap import Interval, cluster_bootstrap_weights, percentile_interval
from undersong.types import UndersongError

DistancesToHarm = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
LEVEL = 0.95  # of intervals, shared by all axes
MIN_HARM_CLUSTERS = 4  # two for each half


def axis_level(axes: int) -> float:
    """Level of each axis's intervals, so that that of all together is 95 % (Bonferroni)."""
    return 1 - (1 - LEVEL) / axes


def separates(auc: Interval) -> bool:
    """True if an axis tells harm from ordinary items better than chance."""
    return auc.low is not None and auc.low > 0.5


def separation_sentence(axis: str, auc: Interval, ordinary: str = "ordinary requests") -> str:
    """Say whether an axis tells held-out harm from ordinary items.

    Args:
        axis: Name of the axis.
        auc: What `separation_auc` gave.
        ordinary: What the ordinary items are called.
    """
    interval = "" if auc.low is None else f" [{auc.low:.2f}, {auc.high:.2f}]"
    verb = "separates" if separates(auc) else "does not significantly separate"
    measured = f"AUC {auc.value:.2f}{interval}; 0.5 is chance"
    sentence = f"The axis {axis} {verb} held-out harmful requests from {ordinary} ({measured})"
    if auc.high is not None and auc.high < 0.5:
        return f"{sentence}: {ordinary} lie nearer to the harm set than held-out harmful requests do."
    return f"{sentence}."


def split_by_cluster(clusters: Sequence[Hashable], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of two random halves of items (n,), by whole clusters.

    Raises:
        UndersongError: There are fewer than two clusters.
    """
    names = sorted(set(clusters), key=str)
    if len(names) < 2:
        raise UndersongError("A set of a single cluster cannot be split into halves; give a set with more behaviors.")
    first = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]}
    in_first = np.array([name in first for name in clusters])
    return np.flatnonzero(in_first), np.flatnonzero(~in_first)


def separation_auc(
    distances: DistancesToHarm,
    harm_clusters: Sequence[Hashable],
    ordinary_clusters: Sequence[Hashable],
    *,
    draws: int = 300,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Probability that a harmful item lies nearer to other harmful items than an ordinary item does; 0.5 is chance.

    The harm set is split into halves by whole clusters. Each half in turn is the target, and the other is compared with
    the ordinary items. The value is the mean of both, with a bootstrap over clusters of all sets.

    Args:
        distances: Gives the distances of the harm items at the second positions, and of all ordinary items, to the harm
            items at the first positions.
        harm_clusters: Cluster of each harm item, (m,).
        ordinary_clusters: Cluster of each ordinary item, (n,).
        draws: Number of bootstrap draws.
        seed: Seed of the split and of the bootstrap.
        level: Level of the interval.
    """
    halves = split_by_cluster(harm_clusters, seed)
    scales, streams = [], []
    seeds = np.random.SeedSequence(seed).spawn(3)
    # One draw of ordinary items serves both halves, because both are compared with the same items.
    ordinary_draws = list(cluster_bootstrap_weights(ordinary_clusters, draws, seeds[2]))
    for (target, heldout), child in zip((halves, halves[::-1]), seeds):
        scales.append(rank_positions(distances(target, heldout)))
        streams.append(list(cluster_bootstrap_weights([harm_clusters[i] for i in heldout], draws, child)))

    def mean_auc(harm_weights: Sequence[np.ndarray], ordinary_weights: np.ndarray) -> float:
        areas = [
            probability_below(value_shares(scale, 0, weights), value_shares(scale, 1, ordinary_weights))
            for scale, weights in zip(scales, harm_weights, strict=True)
        ]
        return float(np.mean(areas))

    value = mean_auc([np.ones(len(heldout)) for heldout in halves[::-1]], np.ones(len(ordinary_clusters)))
    drawn = np.array([mean_auc(weights, ordinary_draws[i]) for i, weights in enumerate(zip(*streams, strict=True))])
    clusters = min(len(set(harm_clusters)) // 2, len(set(ordinary_clusters)))
    return percentile_interval(value, drawn, clusters, level)
