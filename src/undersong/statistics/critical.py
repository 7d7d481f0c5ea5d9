"""Two-sided critical values.  Knows no data."""

from __future__ import annotations

from functools import lru_cache

from undersong.types import UndersongError


@lru_cache(maxsize=256)
def critical_value(level: float, df: int | None = None) -> float:
    """The two-sided quantile at `level`: normal, or Student's t where degrees of freedom `df` are given."""
    from scipy import stats

    if not 0 < level < 1:
        raise UndersongError(f"A confidence level lies between 0 and 1, not at {level}; give for example 0.95.")
    tail = (1 + level) / 2
    return float(stats.norm.ppf(tail) if df is None else stats.t.ppf(tail, df))
