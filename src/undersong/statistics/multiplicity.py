"""Correction for the number of comparisons.  Knows p values; does not know what was compared."""

from __future__ import annotations

from collections.abc import Sequence

from undersong.types import UndersongError


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p values (1979), in the same order.  None (not measured) stays None and is not counted."""
    from statsmodels.stats.multitest import multipletests

    measured = [p for p in ps if p is not None]
    for p in measured:
        if not 0 <= p <= 1:
            raise UndersongError(f"A p value lies between 0 and 1, not at {p}; check the test that gave it.")
    if not measured:
        return [None] * len(ps)
    adjusted = iter(multipletests(measured, method="holm")[1].tolist())
    return [None if p is None else next(adjusted) for p in ps]
