"""Weighted ROC area (Mann-Whitney) and the share of a set below a reference's quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError


@dataclass(frozen=True, slots=True)
class RankPositions:
    """Several sets of numbers on one scale: all `values` (u,), sorted, and the index of each set's items among them."""

    values: np.ndarray
    positions: tuple[np.ndarray, ...]


def rank_positions(sets: Sequence[np.ndarray]) -> RankPositions:
    """Put several sets of numbers on one scale.

    Raises:
        UndersongError: A set is empty or holds a number that is not finite.
    """
    for sample in sets:
        if len(sample) == 0 or not np.isfinite(sample).all():
            raise UndersongError("A set to compare is empty or holds a number that is not finite; leave it out.")
    values, positions = np.unique(np.concatenate(sets), return_inverse=True)
    return RankPositions(values.astype(np.float64), tuple(np.split(positions, np.cumsum([len(s) for s in sets])[:-1])))


def value_shares(scale: RankPositions, index: int, weights: np.ndarray) -> np.ndarray:
    """Weighted share (u,) of set number `index` at each value; `weights` has one weight per item."""
    counts = np.bincount(scale.positions[index], weights=weights, minlength=len(scale.values))
    return counts / counts.sum()


def probability_below(shares: np.ndarray, reference: np.ndarray) -> float:
    """Probability that an item with `shares` (u,) lies below one with shares `reference` (u,); ties count half."""
    return float(reference @ (np.cumsum(shares) - shares / 2))


@dataclass(frozen=True, slots=True)
class QuantileShares:
    """Share of a set below the quantiles of a reference; all arrays are (q,).

    Attributes:
        thresholds: The reference's value at each quantile.
        share: Share of the set below that value. Of items equal to the value, the fraction counts that the quantile
            takes of the reference's own.
        mass: Mean over the whole set of how far an item lies below that value; 0 for items that do not.
    """

    thresholds: np.ndarray
    share: np.ndarray
    mass: np.ndarray


def quantile_shares(
    values: np.ndarray, shares: np.ndarray, reference: np.ndarray, quantiles: np.ndarray
) -> QuantileShares:
    """Share of a set below each quantile of a reference set.

    Args:
        values: Distinct values of both sets, sorted, (u,).
        shares: Share of the set at each value, (u,).
        reference: Share of the reference set at each value, (u,).
        quantiles: Quantiles of the reference, from 0 to 1, (q,).
    """
    support = np.flatnonzero(reference > 0)
    cumulative = np.cumsum(reference[support])
    # Sums of shares reach 1 only up to rounding.
    index = support[np.minimum(np.searchsorted(cumulative, quantiles - 1e-12), len(support) - 1)]
    share_before = np.cumsum(reference)[index] - reference[index]
    fraction = np.clip((quantiles - share_before) / reference[index], 0, 1)
    share_below = np.cumsum(shares)[index] - shares[index]
    thresholds = values[index]
    weighted = np.cumsum(shares * values)[index] - shares[index] * thresholds
    return QuantileShares(
        thresholds, share_below + fraction * shares[index], np.maximum(0.0, thresholds * share_below - weighted)
    )
