"""Weighted ROC area (Mann-Whitney) and the share of a set below a reference's quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError


@dataclass(frozen=True, slots=True)
class RankPositions:
    """Several sets of numbers on one scale: all `values` (u,), sorted, and each set's places among them."""

    values: np.ndarray
    positions: tuple[np.ndarray, ...]


def rank_positions(sets: Sequence[np.ndarray]) -> RankPositions:
    """Raises UndersongError where a set is empty or holds a number that is not finite."""
    for sample in sets:
        if len(sample) == 0 or not np.isfinite(sample).all():
            raise UndersongError("Sets to compare need at least one number each, all finite; leave out what has none.")
    values, positions = np.unique(np.concatenate(sets), return_inverse=True)
    return RankPositions(values.astype(np.float64), tuple(np.split(positions, np.cumsum([len(s) for s in sets])[:-1])))


def value_shares(scale: RankPositions, index: int, weights: np.ndarray) -> np.ndarray:
    """(u,) share of set number `which` at each value, every item with its weight."""
    counts = np.bincount(scale.positions[index], weights=weights, minlength=len(scale.values))
    return counts / counts.sum()


def probability_below(shares: np.ndarray, reference: np.ndarray) -> float:
    """The chance that an item with shares `mine` (u,) is below one with shares `reference` (u,); equals count half."""
    return float(reference @ (np.cumsum(shares) - shares / 2))


@dataclass(frozen=True, slots=True)
class QuantileShares:
    """At each asked quantile of the reference, all (q,): its value, the share of the set below it, and its mass there.

    `mass`: the mean over the whole set of how far an item is below that value, 0 for those that are not.  Of items
    equal to the value the part counts that the quantile takes of the reference's own.
    """

    thresholds: np.ndarray
    share: np.ndarray
    mass: np.ndarray


def quantile_shares(
    values: np.ndarray, shares: np.ndarray, reference: np.ndarray, quantiles: np.ndarray
) -> QuantileShares:
    """`values` (u,) sorted with shares `mine` and `reference` (u,); `quantiles` (q,) within 0 to 1."""
    support = np.flatnonzero(reference > 0)
    cumulative = np.cumsum(reference[support])
    # A sum of shares is 1 but for rounding, as is q x n of a count.
    index = support[np.minimum(np.searchsorted(cumulative, quantiles - 1e-12), len(support) - 1)]
    share_before = np.cumsum(reference)[index] - reference[index]
    fraction = np.clip((quantiles - share_before) / reference[index], 0, 1)
    share_below = np.cumsum(shares)[index] - shares[index]
    thresholds = values[index]
    weighted = np.cumsum(shares * values)[index] - shares[index] * thresholds
    return QuantileShares(
        thresholds, share_below + fraction * shares[index], np.maximum(0.0, thresholds * share_below - weighted)
    )
