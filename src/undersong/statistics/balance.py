"""Covariate balance of a selection against its pool: standardized differences, total variation, Jaccard overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np

from undersong.types import UndersongError


class Balance(NamedTuple):
    """Shares of one value in a selection and in its pool, and their standardized difference."""

    share_selected: float
    share_pool: float
    standardized_difference: float


def group_balance(selected: Sequence[str], pool: Sequence[str]) -> dict[str, Balance]:
    """Balance of each value of one label in the pool, in sorted order.

    The difference is (selected - pool) over the root of the mean of the two binomial variances (Austin 2009). A
    difference of 0.1 is the usual mark of imbalance.

    Raises:
        UndersongError: The selection or the pool is empty, or the selection is not from the pool.
    """
    if not selected or not pool:
        raise UndersongError("The selection or its pool is empty, so there is no balance; check the selection.")
    selected_counts, pool_counts = Counter(selected), Counter(pool)
    excess = sorted(value for value, count in selected_counts.items() if count > pool_counts[value])
    if excess:
        raise UndersongError(
            f"The selection has more items of {excess[0]!r} than its pool; compare it with its own pool."
        )
    return {
        value: _label_balance(selected_counts[value] / len(selected), pool_counts[value] / len(pool))
        for value in sorted(pool_counts)
    }


def _label_balance(selected: float, pool: float) -> Balance:
    pooled_sd = sqrt((selected * (1 - selected) + pool * (1 - pool)) / 2)
    # The deviation is 0 only if every item of the selection and of the pool has this one value.
    return Balance(selected, pool, (selected - pool) / pooled_sd if pooled_sd > 0 else 0.0)


class Imbalance(NamedTuple):
    """Summary of how far a selection's shares of one label are from its pool's."""

    values: int  # distinct values in the pool
    largest: float  # the standardized difference farthest from 0
    of: str  # the value with that difference
    moved: float  # total variation distance: the share of the selection that would have to be exchanged


def imbalance(selected: Sequence[str], pool: Sequence[str]) -> Imbalance:
    """Summarize `group_balance` of one label. If two values are equally far, the first in sorted order is named."""
    balances = group_balance(selected, pool)
    largest_value = max(balances, key=lambda value: abs(balances[value].standardized_difference))
    total_variation = sum(abs(row.share_selected - row.share_pool) for row in balances.values()) / 2
    return Imbalance(len(balances), balances[largest_value].standardized_difference, largest_value, total_variation)


def standardized_difference(selected: np.ndarray, pool: np.ndarray) -> float:
    """Difference of means, selected - pool, over the root of the mean of both variances (Austin 2009).

    It is 0 if nothing varies and the means are equal, and infinite if only the means differ.

    Raises:
        UndersongError: Either array is empty or holds a value that is not finite.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (selected, pool))
    if not (len(first) and len(second) and np.isfinite(first).all() and np.isfinite(second).all()):
        raise UndersongError("A standardized difference needs finite numbers on both sides; leave out missing values.")
    difference = float(first.mean() - second.mean())
    pooled_sd = sqrt((float(first.var()) + float(second.var())) / 2)
    if np.ptp(first) == 0 == np.ptp(second):  # their computed variances are rounding errors
        return 0.0 if first[0] == second[0] else float(np.copysign(np.inf, difference))
    return difference / pooled_sd


def jaccard(a: Sequence[str], b: Sequence[str]) -> float:
    """Number of shared ids of two selections over the number of all their ids.

    Raises:
        UndersongError: Both selections are empty.
    """
    union = {*a, *b}
    if not union:
        raise UndersongError("Two empty selections have no overlap; check the selections.")
    return len(set(a) & set(b)) / len(union)
