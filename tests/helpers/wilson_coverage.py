"""How often Wilson's interval holds the true share: exact, by the binomial sum.  Knows no data.

Coverage jumps where the true share passes an end of an interval, so a grid of shares misses its worst.  Between two
ends it is a sum of neighbouring binomial chances, which rises and then falls, so that its worst lies at an end; and its
mean over all shares is an integral with a closed form (incomplete beta functions).  Neither needs a grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undersong.statistics.rates import wilson_interval
from undersong.types import UndersongError


@dataclass(frozen=True, slots=True)
class CoverageSummary:
    """Of the interval for shares of `n` independent prompts, over true shares from `low` to `high`, equally likely.

    `worst` is a limit: coverage falls to it as the true share nears `worst_rate` from the side where one count less
    holds it.  1 - `worst_rate`, where in range, is as bad.
    """

    n: int
    level: float
    low: float
    high: float
    mean: float
    worst: float
    worst_rate: float


def wilson_coverage(n: int, rate: float, level: float = 0.95) -> float:
    """The chance that `wilson`'s interval, of `n` prompts at true share `rate`, holds `rate`."""
    from scipy.stats import binom

    lows, highs = _interval_ends(n, level)
    _check_range(rate, rate)
    counts = np.flatnonzero((lows <= rate) & (rate <= highs))
    return float(binom.pmf(counts, n, rate).sum())


def wilson_coverage_range(n: int, level: float = 0.95, low: float = 0.0, high: float = 1.0) -> CoverageSummary:
    """Mean and worst coverage of `wilson` over true shares between `low` and `high`.

    Raises UndersongError for fewer than one prompt, or a range that is none.
    """
    from scipy.special import betainc
    from scipy.stats import binom

    lows, highs = _interval_ends(n, level)
    _check_range(low, high)
    if low == high:
        raise UndersongError(f"Coverage is averaged over a range of shares, not over {low} alone; use wilson_coverage.")
    counts = np.arange(n + 1)
    # The integral of a binomial chance over the true share is that of a beta density, over n + 1.
    coverage_integral = betainc(counts + 1, n - counts + 1, np.clip(highs, low, high))
    coverage_integral -= betainc(counts + 1, n - counts + 1, np.clip(lows, low, high))
    endpoints = np.concatenate([lows, highs])
    shares = np.sort(np.concatenate([[low, high], endpoints[(low < endpoints) & (endpoints < high)]]))
    # The limit from the side on which the interval that ends here does not hold the share; 0 and 1 have no such side.
    lowest, highest = np.searchsorted(highs, shares, "right"), np.searchsorted(lows, shares, "left") - 1
    lowest[shares == 1.0], highest[shares == 0.0] = n, 0
    coverage = binom.cdf(highest, n, shares) - binom.cdf(lowest - 1, n, shares)
    worst = int(np.argmin(coverage.round(12)))  # of mirror images, which differ by rounding, the smaller share
    mean = float(coverage_integral.sum()) / (n + 1) / (high - low)
    return CoverageSummary(n, level, low, high, mean, float(coverage[worst]), float(shares[worst]))


def _interval_ends(n: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the interval of each count, (n + 1,) each, both increasing."""
    if n < 1:
        raise UndersongError(f"There is no coverage of {n} prompts; give at least 1.")
    ends = np.array([wilson_interval(count, n, level) for count in range(n + 1)])
    return ends[:, 0], ends[:, 1]


def _check_range(low: float, high: float) -> None:
    if not 0 <= low <= high <= 1:
        raise UndersongError(f"True shares lie between 0 and 1 and in order, not at {low} and {high}.")
