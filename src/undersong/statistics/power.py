"""Power analysis of a paired t test over runs: detectable difference and number of units needed."""

from __future__ import annotations

from functools import lru_cache
from math import isfinite, sqrt

import numpy as np

from undersong.statistics.rates import critical_value
from undersong.types import UndersongError

POWER = 0.8
MAX_UNITS = 10_000  # for a design that needs more, `units_needed` returns None
QUADRATURE_NODES = 4_096  # equally likely sample standard deviations to average over


def t_power(effect: float, units: int, level: float) -> float:
    """Power of a two-sided t test at `level` for a mean of `effect` standard deviations and `units` units."""
    shift, sds = effect * sqrt(units), _sample_sds(units - 1)
    from scipy.special import ndtr

    edge = critical_value(level, units - 1) * sds
    return float(np.mean(ndtr(shift - edge) + ndtr(-shift - edge)))


def detectable_difference(
    units: int, sd: float, level: float = 0.95, power: float = POWER, comparisons: int = 1
) -> float | None:
    """Smallest mean difference that a two-sided paired t test detects with the given power.

    Args:
        units: Number of independent paired differences.
        sd: Standard deviation of the paired differences.
        level: Confidence level; the test is at 1 - `level`.
        power: Probability of detecting the difference.
        comparisons: Number of comparisons the level is divided by (Bonferroni, the conservative first step of Holm).

    Returns:
        The difference, or None for a single unit, which cannot show any.

    Raises:
        UndersongError: An argument is out of range.
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
    """Number of independent units that a two-sided paired t test needs to detect a mean difference.

    Args:
        difference: Mean difference to detect.
        sd: Standard deviation of the paired differences.
        level: Confidence level; the test is at 1 - `level`.
        power: Probability of detecting the difference.
        comparisons: Number of comparisons the level is divided by (Bonferroni).

    Returns:
        The number of units, or None if more than 10,000 are needed.

    Raises:
        UndersongError: An argument is out of range, or the difference is 0.
    """
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
    """Equally likely sample standard deviations of unit normals, (QUADRATURE_NODES,)."""
    from scipy import stats

    return np.sqrt(stats.chi2.ppf((np.arange(QUADRATURE_NODES) + 0.5) / QUADRATURE_NODES, df) / df)


def _check_design(sd: float, level: float, power: float, comparisons: int) -> None:
    if not isfinite(sd) or sd < 0:
        raise UndersongError(
            f"A standard deviation cannot be {sd}; give the standard deviation of paired differences of runs."
        )
    if not (0 < level < 1 and 0 < power < 1):
        raise UndersongError(f"Level and power lie between 0 and 1, not at {level} and {power}.")
    if comparisons < 1:
        raise UndersongError(f"There are {comparisons} comparisons to correct for; give at least 1.")
