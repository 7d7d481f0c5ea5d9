"""Is a selection more than one speaker or group?  Knows labels and ids; does not know distances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from undersong.types import UndersongError


class Balance(NamedTuple):
    """Shares of one value in a selection and in its pool, and their standardised difference."""

    share_selected: float
    share_pool: float
    standardised_difference: float


def balance(selected: Sequence[str], pool: Sequence[str]) -> dict[str, Balance]:
    """Value -> shares, for each value of one label in the pool, in sorted order.

    The difference is (selected - pool) over the root of the mean of the two binomial variances (Austin 2009); 0.1 is
    the usual mark of imbalance.  Raises UndersongError where either is empty, or the selection is not from the pool.
    """
    if not selected or not pool:
        raise UndersongError("Balance needs a selection and a pool that are not empty; check the selection.")
    inside, outside = Counter(selected), Counter(pool)
    strange = sorted(value for value, count in inside.items() if count > outside[value])
    if strange:
        raise UndersongError(
            f"The selection has more items of {strange[0]!r} than its pool; compare it with its own pool."
        )
    return {value: _compare(inside[value] / len(selected), outside[value] / len(pool)) for value in sorted(outside)}


def _compare(selected: float, pool: float) -> Balance:
    spread = sqrt((selected * (1 - selected) + pool * (1 - pool)) / 2)
    # A selection from the pool has no spread only where every item of both has this one value.
    return Balance(selected, pool, (selected - pool) / spread if spread > 0 else 0.0)


def jaccard(a: Sequence[str], b: Sequence[str]) -> float:
    """Shared ids over all ids of two selections.  Raises UndersongError where both are empty."""
    union = {*a, *b}
    if not union:
        raise UndersongError("Two empty selections have no overlap; check the selections.")
    return len(set(a) & set(b)) / len(union)
