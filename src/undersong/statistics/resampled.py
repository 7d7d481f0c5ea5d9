"""Rank correlation and overlap of weighted items: what a bootstrap draw needs, without sorting again.

A draw is a list of items in which some stand several times; here it is a whole weight per item, and every number equals
that of the written-out list (tests).  Knows scores and weights; does not know axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError


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
