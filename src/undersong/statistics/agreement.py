"""Agreement of judges (Cohen's kappa) and of proximity axes (Spearman correlation, overlap of the closest items)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from undersong.statistics.bootstrap import Interval, cluster_bootstrap_weights, percentile_interval
from undersong.types import UndersongError


def kappa(a: Sequence[str], b: Sequence[str]) -> float | None:
    """Cohen's kappa of two judges' verdicts on the same prompts, in the same order.

    Returns None if both judges gave one and the same verdict throughout: kappa is then 0 / 0.

    Raises:
        UndersongError: The lists differ in length or are empty.
    """
    from sklearn.metrics import cohen_kappa_score

    if len(a) != len(b) or len(a) == 0:
        raise UndersongError(
            f"The judges gave {len(a)} and {len(b)} verdicts; give both judges' verdicts on the same prompts."
        )
    if len({*a, *b}) == 1:
        return None
    return float(cohen_kappa_score(list(a), list(b)))


def kappa_interval(
    a: Sequence[bool], b: Sequence[bool], clusters: Sequence[Hashable], draws: int = 1000, seed: int = 0
) -> Interval | None:
    """Cohen's kappa of two judges' yes-or-no verdicts, with a percentile interval over whole clusters.

    Bootstrap draws in which kappa is 0 / 0 have no value. If they are more than one in twenty, there is no interval.

    Args:
        a: Verdicts of the first judge, (n,).
        b: Verdicts of the second judge on the same items, (n,).
        clusters: Cluster of each item, (n,).
        draws: Number of bootstrap draws.
        seed: Seed of the bootstrap.

    Returns:
        Kappa and its interval, or None if both judges gave one and the same answer throughout.

    Raises:
        UndersongError: The lists differ in length or are empty.
    """
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if not len(first) == len(second) == len(clusters) or not len(first):
        raise UndersongError(
            f"The judges gave {len(first)} and {len(second)} verdicts on {len(clusters)} items; "
            "give both judges' verdicts on the same items."
        )
    estimate = _weighted_kappa(first, second, np.ones(len(first)))
    if not np.isfinite(estimate):
        return None
    bootstrap_values = np.array(
        [_weighted_kappa(first, second, weights) for weights in cluster_bootstrap_weights(clusters, draws, seed)]
    )
    return percentile_interval(estimate, bootstrap_values, len(set(clusters)))


def _weighted_kappa(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    share = weights / weights.sum()
    agree, yes = share @ (a == b), (share @ a, share @ b)
    chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    return float((agree - chance) / (1 - chance)) if chance < 1 else float("nan")


def spearman(scores: np.ndarray) -> np.ndarray:
    """Rank correlations (axes, axes) of scores (axes, n); ties share their mean rank.

    Raises:
        UndersongError: An axis is constant, or a score is not finite.
    """
    from scipy.stats import rankdata

    _check_scores(scores)
    if (np.ptp(scores, axis=1) == 0).any():
        row = int(np.flatnonzero(np.ptp(scores, axis=1) == 0)[0])
        raise UndersongError(f"All scores of axis number {row} are equal, so it ranks nothing; check its encoder.")
    return np.atleast_2d(np.corrcoef(rankdata(scores, axis=1)))


def closest_overlap(scores: np.ndarray, ids: Sequence[str], k: int) -> np.ndarray:
    """Share of the k closest items that each two axes have in common, (axes, axes).

    The closest items have the lowest scores; ties are broken by id. Unrelated axes share k / n of them by chance.

    Args:
        scores: Distances, (axes, n).
        ids: Item ids, (n,).
        k: Number of closest items.

    Raises:
        UndersongError: Ids and scores differ in number, or k is not between 1 and n.
    """
    _check_scores(scores)
    n = scores.shape[1]
    if len(ids) != n or not 1 <= k <= n:
        raise UndersongError(
            f"Overlap needs one id per score and 1 <= k <= n, not {len(ids)} ids, {n} scores, k = {k}."
        )
    is_closest = np.zeros(scores.shape, dtype=np.int64)
    for row, values in enumerate(scores):
        is_closest[row, np.lexsort((np.asarray(ids), values))[:k]] = 1
    return is_closest @ is_closest.T / k


def _check_scores(scores: np.ndarray) -> None:
    if scores.ndim != 2 or scores.shape[1] < 2 or not np.isfinite(scores).all():
        raise UndersongError(
            f"Agreement needs finite scores of shape (axes, n >= 2), not an array of shape {scores.shape}."
        )
