"""Cluster bootstrap: resampling weights, percentile intervals, and rank statistics of weighted items."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError

MIN_VALID_SHARE = 0.95  # share of bootstrap draws that must give a value


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval; the ends are None if too few draws gave a value or there is only one cluster."""

    value: float
    low: float | None
    high: float | None


def cluster_bootstrap_weights(
    clusters: Sequence[Hashable], draws: int, seed: int | np.random.SeedSequence
) -> Iterator[np.ndarray]:
    """Yield bootstrap weights (n,), int64: how often each item is in a draw of whole clusters.

    Clusters are numbered in sorted order of their names, so a draw does not depend on the order of the items (Davison
    and Hinkley 1997, 3.8: resample the independent units).

    Raises:
        UndersongError: Fewer than one draw is requested.
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
    """Percentile interval of bootstrap values, without the draws that had no value (NaN).

    Args:
        value: The estimate itself.
        bootstrap_values: Its value in each draw, (draws,).
        clusters: Number of clusters; a single cluster gives no interval.
        level: Confidence level.

    Raises:
        UndersongError: The level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise UndersongError(f"A confidence level lies between 0 and 1, not at {level}; give for example 0.95.")
    finite = bootstrap_values[np.isfinite(bootstrap_values)]
    if clusters < 2 or len(finite) < MIN_VALID_SHARE * len(bootstrap_values):
        return Interval(value, None, None)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


@dataclass(frozen=True, slots=True)
class RankedScores:
    """Scores as dense integer codes (n,), in the order of the scores and equal for equal scores."""

    codes: np.ndarray
    tied_share: float  # share of items with the same score as another item


def rank_scores(scores: np.ndarray) -> RankedScores:
    """Encode scores (n,) by their rank.

    Raises:
        UndersongError: There are fewer than two scores, or one is not finite.
    """
    scores = np.asarray(scores)
    if scores.ndim != 1 or len(scores) < 2 or not np.isfinite(scores).all():
        raise UndersongError(f"Ranks need at least 2 scores, all finite, not an array of shape {scores.shape}.")
    _, codes, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    return RankedScores(codes, float(sizes[sizes > 1].sum() / len(scores)))


def mid_ranks(ranked_scores: RankedScores, weights: np.ndarray) -> np.ndarray:
    """Mean rank (n,) of each item among its copies and ties, if each item is repeated `weights` (n,) times."""
    sizes = np.bincount(ranked_scores.codes, weights=weights)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[ranked_scores.codes]


def weighted_correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    """Weighted Pearson correlation of `a` and `b` (n,); on mid ranks it is Spearman's. NaN if either is constant."""
    present = weights > 0
    a, b, share = a[present], b[present], weights[present] / weights.sum()
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = a - share @ a, b - share @ b
    return float(share @ (a * b) / np.sqrt((share @ (a * a)) * (share @ (b * b))))


def weighted_overlap(a: RankedScores, b: RankedScores, weights: np.ndarray, k: int) -> float:
    """Share of the `k` closest items (lowest scores) that two axes have in common, with ties broken at random per axis.

    Breaking ties by id would break them alike on both axes, and two axes that tie at the cut would agree for no other
    reason. With random ties, an axis that ties there agrees with itself by less than 1, and unrelated axes share k / n
    whatever their ties.

    Args:
        a: Ranked scores of the first axis.
        b: Ranked scores of the second axis, for the same items.
        weights: How often each item counts, (n,).
        k: Number of closest items.
    """
    return float(weights @ (_probability_closest(a, weights, k) * _probability_closest(b, weights, k)) / k)


def _probability_closest(ranked_scores: RankedScores, weights: np.ndarray, k: int) -> np.ndarray:
    """Probability (n,) that a copy of an item is among the first k, with ties broken at random."""
    sizes = np.bincount(ranked_scores.codes, weights=weights)
    remaining = k - (np.cumsum(sizes) - sizes)
    return np.clip(np.divide(remaining, sizes, out=np.zeros_like(sizes), where=sizes > 0), 0, 1)[ranked_scores.codes]
