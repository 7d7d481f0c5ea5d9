"""Holm correction for multiple comparisons, for p values and for one-sided bounds.

(Short: kept apart, because readers look for it by name.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from undersong.types import UndersongError


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p values (1979), in the same order.  None (not measured) stays None and is not counted."""
    measured = [p for p in ps if p is not None]
    for p in measured:
        if not 0 <= p <= 1:
            raise UndersongError(f"A p value lies between 0 and 1, not at {p}; check the test that gave it.")
    # statsmodels' `multipletests` finds the same bits, but collects garbage at every call: 30-100 ms with torch loaded.
    order = np.argsort(measured)
    raised = np.maximum.accumulate(np.take(measured, order) * np.arange(len(measured), 0, -1))
    adjusted = np.empty(len(measured))
    adjusted[order] = np.minimum(raised, 1.0)
    remaining = iter(adjusted.tolist())
    return [None if p is None else next(remaining) for p in ps]


def holm_levels(holds: Callable[[int, float], bool], count: int, alpha: float) -> list[float]:
    """Holm's procedure for claims that are bounds and have no p value: the level that each of `count` is tested at.

    `shown(i, level)`: does claim i hold at that level?  All start at alpha / count; what holds is taken out, and the
    rest are tested at alpha / their number, until nothing more holds.  The claims are those that `holm` would make.
    """
    levels, open_claims = [alpha / max(count, 1)] * count, set(range(count))
    while proven := {i for i in open_claims if holds(i, levels[i])}:
        open_claims -= proven
        for i in open_claims:
            levels[i] = alpha / len(open_claims)
    return levels
