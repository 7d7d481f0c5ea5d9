"""Cluster bootstrap: resampling weights, percentile intervals, and rank statistics of weighted items."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError

MIN_VALID_SHARE = 0.95  # share of draws that must give a value


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval; None: too few draws gave a value, or there is one cluster only."""

    value: float
    low: float | None
    high: float | None


def cluster_bootstrap_weights(
    clusters: Sequence[Hashable], draws: int, seed: int | np.random.SeedSequence
) -> Iterator[np.ndarray]:
    """Bootstrap draws over whole clusters: for each, how often every item (n,) is in it, int64.

    Clusters are numbered in sorted order of their names, so a draw depends on what an item's cluster is called and not
    on where the item stands (Davison and Hinkley 1997, 3.8: resample the independent units).
    """
    if draws < 1:
        raise UndersongError(f"{draws} bootstrap draws give no interval; ask for at least 1, better 1000.")
    names = sorted(set(clusters), key=str)
    positions = {name: i for i, name in enumerate(names)}
    index = np.array([positions[name] for name in clusters], dtype=np.int64)
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[index]


def percentile_interval(value: float, bootstrap_values: np.ndarray, clusters: int, level: float = 0.95) -> Interval:
    """Percentile interval of `drawn` (draws,), without the draws that had no value (NaN)."""
    if not 0 < level < 1:
        raise UndersongError(f"A confidence level lies between 0 and 1, not at {level}; give for example 0.95.")
    finite = bootstrap_values[np.isfinite(bootstrap_values)]
    if clusters < 2 or len(finite) < MIN_VALID_SHARE * len(bootstrap_values):
        return Interval(value, None, None)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


@dataclass(frozen=True, slots=True)
class RankedScores:
    """Scores made ready: dense codes (n,), in order and equal for equal scores."""

    codes: np.ndarray
    tied_share: float  # share of items whose score another item has too


def rank_scores(scores: np.ndarray) -> RankedScores:
    """Raises UndersongError for fewer than two scores, or one that is not finite."""
    scores = np.asarray(scores)
    if scores.ndim != 1 or len(scores) < 2 or not np.isfinite(scores).all():
        raise UndersongError(f"Ranks need at least 2 scores, all finite, not an array of shape {scores.shape}.")
    _, codes, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    return RankedScores(codes, float(sizes[sizes > 1].sum() / len(scores)))


def mid_ranks(ranked_scores: RankedScores, weights: np.ndarray) -> np.ndarray:
    """(n,) mean rank of each item among its copies and ties, in the list that `weights` (n,) write out."""
    sizes = np.bincount(ranked_scores.codes, weights=weights)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[ranked_scores.codes]


def weighted_correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    """Pearson's r of (n,) `a` and `b`; of mid ranks it is Spearman's.  NaN where one is constant."""
    present = weights > 0
    a, b, share = a[present], b[present], weights[present] / weights.sum()
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = a - share @ a, b - share @ b
    return float(share @ (a * b) / np.sqrt((share @ (a * a)) * (share @ (b * b))))


def weighted_overlap(a: RankedScores, b: RankedScores, weights: np.ndarray, k: int) -> float:
    """Share of the `k` closest (lowest scores) that two axes have in common, ties falling at random on either.

    Ties by id would fall alike on both: axes that tie where the line is drawn would agree for no other reason.  So an
    axis that ties there agrees with itself by less than 1, and unrelated axes share k / n whatever their ties.
    """
    return float(weights @ (_probability_closest(a, weights, k) * _probability_closest(b, weights, k)) / k)


def _probability_closest(ranked_scores: RankedScores, weights: np.ndarray, k: int) -> np.ndarray:
    """(n,) the chance that a copy of an item is among the first k, when equal ones share the places left for them."""
    sizes = np.bincount(ranked_scores.codes, weights=weights)
    remaining = k - (np.cumsum(sizes) - sizes)
    return np.clip(np.divide(remaining, sizes, out=np.zeros_like(sizes), where=sizes > 0), 0, 1)[ranked_scores.codes]
