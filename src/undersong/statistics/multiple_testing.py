"""Holm correction for multiple comparisons, for p values and for one-sided bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from undersong.types import UndersongError


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Adjust p values by Holm's method (1979), in the same order. None (not measured) stays None and is not counted.

    Raises:
        UndersongError: A p value is not between 0 and 1.
    """
    measured = [p for p in ps if p is not None]
    for p in measured:
        if not 0 <= p <= 1:
            raise UndersongError(f"A p value lies between 0 and 1, not at {p}; check the test that gave it.")
    # statsmodels' `multipletests` in two lines: the core is installed without it, and scipy has no Holm.
    values = np.array(measured, dtype=np.float64)
    order = np.argsort(values)
    values[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    remaining = iter(values.tolist())
    return [None if p is None else next(remaining) for p in ps]


def holm_levels(holds: Callable[[int, float], bool], count: int, alpha: float) -> list[float]:
    """Significance level of each claim by Holm's procedure, for claims that are bounds and have no p value.

    All claims start at alpha / count. Claims that hold are set aside, and the others are tested at alpha / their
    number, until no more hold. The proven claims are those that `holm` would prove.

    Args:
        holds: `holds(i, level)` says whether claim i holds at that level.
        count: Number of claims.
        alpha: Family-wise error rate.
    """
    levels, open_claims = [alpha / max(count, 1)] * count, set(range(count))
    while proven := {i for i in open_claims if holds(i, levels[i])}:
        open_claims -= proven
        for i in open_claims:
            levels[i] = alpha / len(open_claims)
    return levels
