"""Power analysis of a paired t test over runs: detectable difference and number of units needed."""

from __future__ import annotations

from functools import lru_cache
from math import isfinite, sqrt

import numpy as np

from undersong.statistics.rates import critical_value
from undersong.types import UndersongError

POWER = 0.8
MAX_UNITS = 10_000  # units; a design that needs more is told so by None
QUADRATURE_NODES = 4_096  # equally likely spreads that are averaged over


def t_power(effect: float, units: int, level: float) -> float:
    """The chance that a two-sided t test at `level` finds a mean of `effect` standard deviations in `units` units."""
    shift, sds = effect * sqrt(units), _sample_sds(units - 1)
    from scipy.special import ndtr

    edge = critical_value(level, units - 1) * sds
    return float(np.mean(ndtr(shift - edge) + ndtr(-shift - edge)))


def detectable_difference(
    units: int, sd: float, level: float = 0.95, power: float = POWER, comparisons: int = 1
) -> float | None:
    """The smallest mean difference that `units` paired differences of standard deviation `sd` show with `power`.

    Two-sided at 1 - `level`; with several `comparisons` at that over their number (Bonferroni, which Holm's first step
    is, so the figure is the conservative one).  None for one unit, which can show nothing.
    """
    _check_design(sd, level, power, comparisons)
    if units < 2:
        return None
    from scipy.optimize import brentq

    corrected_level, high = 1 - (1 - level) / comparisons, 1.0
    while t_power(high, units, corrected_level) < power:
        high *= 2
    effect = brentq(lambda effect: t_power(effect, units, corrected_level) - power, 0.0, high, xtol=1e-9)
    return float(effect) * sd


def units_needed(
    difference: float, sd: float, level: float = 0.95, power: float = POWER, comparisons: int = 1
) -> int | None:
    """How many independent units show a mean `difference` with `power`; None where it takes more than 10,000."""
    _check_design(sd, level, power, comparisons)
    if not isfinite(difference) or difference == 0:
        raise UndersongError(f"A difference of {difference} cannot be planned for; give the smallest that matters.")
    if sd == 0:
        return 2
    corrected_level, effect = 1 - (1 - level) / comparisons, abs(difference) / sd
    if t_power(effect, MAX_UNITS, corrected_level) < power:
        return None
    low, high = 1, MAX_UNITS  # `low` is too few; the power grows with the units
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if t_power(effect, middle, corrected_level) >= power else (middle, high)
    return high


@lru_cache(maxsize=256)
def _sample_sds(df: int) -> np.ndarray:
    """(NODES,) sample standard deviations of unit normals, equally likely each."""
    from scipy import stats

    return np.sqrt(stats.chi2.ppf((np.arange(QUADRATURE_NODES) + 0.5) / QUADRATURE_NODES, df) / df)


def _check_design(sd: float, level: float, power: float, comparisons: int) -> None:
    if not isfinite(sd) or sd < 0:
        raise UndersongError(f"A standard deviation is not {sd}; give what paired differences of runs vary by.")
    if not (0 < level < 1 and 0 < power < 1):
        raise UndersongError(f"Level and power lie between 0 and 1, not at {level} and {power}.")
    if comparisons < 1:
        raise UndersongError(f"A family of {comparisons} comparisons is none; give at least 1.")
