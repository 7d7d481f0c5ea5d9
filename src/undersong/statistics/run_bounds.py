"""Bounds on the mean rate of a recipe from a few training runs, for any run noise.

Student's t interval assumes that runs scatter normally. Training runs often do not: three of four leave a model as it
was, and the fourth breaks it. Three runs then agree by luck in 42 % of studies, and a t interval, or one over prompts
alone, calls a recipe safe whose mean rate is 20 %. A claim that a rate is low, or that nothing was lost, needs a bound
that holds for every distribution of rates in [0, 1].

The bound is Gaffke's (2005), found again by Learned-Miller and Thomas (2020, arXiv 1905.06208): the quantile of
sum D_i x_i + D_(k+1), where x_i are the k rates and D is uniform on the simplex. If every run breaks fully or not at
all it is the exact bound of Clopper and Pearson (1934). For k equal rates x it is p + (1 - p) x, where
p = 1 - tail^(1/k) is the share of broken runs that k runs without one leave possible. No distribution that violates
its level is known, but there is no general proof. Bounds with a proof are wider: after eight equal runs at 0 Anderson's
(1969) leaves 45 % possible, this one 37 %.

The sum has a B-spline with knots at the rates and at 1 as its density (Curry and Schoenberg 1966), so nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np

from undersong.statistics.rates import critical_value, score_interval
from undersong.statistics.runs import RunKey, ValueRange, unit_means
from undersong.types import UndersongError

SHARES: ValueRange = (0.0, 1.0)
BOUND_CONFIDENCE = 0.975  # one-sided: the ends of a 95 % interval
MIN_TAIL = 1e-9  # the smallest p value that is looked for


@dataclass(frozen=True, slots=True)
class RunBounds:
    """One-sided bounds of a recipe's mean over independent units; each holds with `confidence`."""

    units: int
    low: float
    high: float
    confidence: float


def upper_mean_bound(values: Sequence[float] | np.ndarray, confidence: float = BOUND_CONFIDENCE) -> float:
    """Upper confidence bound of the mean of independent `values` in [0, 1], whatever their distribution.

    Raises:
        UndersongError: There are no values, a value lies outside [0, 1], or the confidence is not between 0.5 and 1.
    """
    if not 0.5 < confidence < 1:
        raise UndersongError(f"The confidence of a one-sided bound lies between 0.5 and 1, not at {confidence}.")
    shares = _checked_shares(values)
    lowest = float(shares.min())
    if float(shares.max()) == lowest:
        return 1 - (1 - lowest) * (1 - confidence) ** (1 / len(shares))
    from scipy.optimize import brentq

    tail = _tail_function(shares)
    return float(brentq(lambda limit: tail(limit) - (1 - confidence), lowest, 1.0, xtol=1e-12))


def lower_mean_bound(values: Sequence[float] | np.ndarray, confidence: float = BOUND_CONFIDENCE) -> float:
    """Lower confidence bound of the mean, the mirror image of `upper_mean_bound`."""
    return 1 - upper_mean_bound(1 - _checked_shares(values), confidence)


def mean_tail(values: Sequence[float] | np.ndarray, limit: float) -> float:
    """One-sided p value of the hypothesis that the mean of independent `values` in [0, 1] is `limit` or more.

    It is the tail at which `upper_mean_bound` equals the limit.
    """
    return _tail_function(_checked_shares(values))(limit)


def bound_run_mean(
    lows: Mapping[RunKey, float],
    highs: Mapping[RunKey, float],
    confidence: float = BOUND_CONFIDENCE,
    limits: ValueRange = SHARES,
) -> RunBounds:
    """Bounds of the mean over runs, with the error of each run's own rate.

    Runs are averaged within their independent unit first, as in `paired_runs`. The bound takes each run at the end of
    its own interval over prompts. Two errors that are added as they stand are more than the error of the sum, so the
    level holds for run noise and prompts together (tests).

    Args:
        lows: Lower end over prompts of each run's rate, at the same one-sided confidence; the rate itself where the
            prompts are taken as fixed, as in a comparison on the same prompts.
        highs: Upper end over prompts of each run's rate.
        confidence: One-sided confidence of either bound.
        limits: Smallest and largest possible value of a run.
    """
    floor, ceiling = limits
    width = ceiling - floor
    low_shares, high_shares = (np.clip((unit_means(ends)[1] - floor) / width, 0.0, 1.0) for ends in (lows, highs))
    return RunBounds(
        len(low_shares),
        floor + width * lower_mean_bound(low_shares, confidence),
        floor + width * upper_mean_bound(high_shares, confidence),
        confidence,
    )


def run_mean_p(bounds_at: Callable[[float], RunBounds], edge: float) -> float:
    """Two-sided p value of the hypothesis that the mean over runs equals `edge`, by inverting its bounds.

    Args:
        bounds_at: Bounds at a one-sided confidence.
        edge: Value that is tested.

    Returns:
        Twice the smallest tail at which a bound excludes the edge, between 2e-9 and 1.
    """

    def excludes(tail: float) -> bool:
        bounds = bounds_at(1 - tail)
        return bounds.low > edge or bounds.high < edge

    few, many = log(MIN_TAIL), log(0.49)
    if not excludes(float(np.exp(many))):
        return 1.0
    if excludes(MIN_TAIL):
        return 2 * MIN_TAIL
    while many - few > 1e-4:
        middle = (few + many) / 2
        few, many = (few, middle) if excludes(float(np.exp(middle))) else (middle, many)
    return min(1.0, 2 * float(np.exp(many)))


def prompt_interval(
    rate: float, low: float, high: float, n: int, clusters: int, confidence: float
) -> tuple[float, float]:
    """Ends of a Wilson interval over prompts at another one-sided confidence than its 97.5 %.

    Each end of the interval says how many independent prompts it stands for; with as many, the interval is computed
    anew.

    Args:
        rate: The rate.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        n: Number of prompts.
        clusters: Number of clusters that they make.
        confidence: One-sided confidence of either end.
    """
    df = None if clusters in (1, n) else clusters - 1
    factor = (critical_value(2 * confidence - 1, df) / critical_value(2 * BOUND_CONFIDENCE - 1, df)) ** 2

    def moved(end: float, side: int) -> float:
        if not 0 < end < 1 or end == rate:
            return end
        # Wilson's ends solve (end - rate)^2 = quantile^2 end (1 - end) / n.
        return score_interval(rate, end * (1 - end) / (end - rate) ** 2 / factor, 1.0)[side]

    return moved(low, 0), moved(high, 1)


def units_to_exclude(limit: float, rate: float, confidence: float = BOUND_CONFIDENCE) -> int | None:
    """Fewest independent runs, all at `rate`, after which `upper_mean_bound` is at or below `limit`.

    Returns None if no number is enough, because the rate is not below the limit.
    """
    if rate >= limit:
        return None
    return max(1, ceil(log(1 - confidence) / log((1 - limit) / (1 - rate)) - 1e-9))


def _tail_function(shares: np.ndarray) -> Callable[[float], float]:
    """Share of the weights D for which the weighted sum of `shares` and 1 is above a limit, as a function of it."""
    from scipy.interpolate import BSpline

    knots = np.sort(np.append(shares, 1.0))
    if knots[0] >= 1:
        return lambda limit: 1.0
    integral = BSpline.basis_element(knots, extrapolate=False).antiderivative()
    start, whole = float(integral(knots[0])), float(knots[-1] - knots[0]) / len(shares)

    def tail(limit: float) -> float:
        if limit <= knots[0] or limit >= 1:
            return float(limit <= knots[0])
        return min(1.0, max(0.0, 1 - (float(integral(limit)) - start) / whole))

    return tail


def _checked_shares(values: Sequence[float] | np.ndarray) -> np.ndarray:
    shares = np.asarray(values, dtype=np.float64)
    if shares.ndim != 1 or len(shares) == 0:
        raise UndersongError("There are no runs to bound a rate with; check the arms and the step.")
    if not ((shares >= -1e-12) & (shares <= 1 + 1e-12)).all():
        raise UndersongError(
            f"A rate lies between 0 and 1, not at {next(v for v in shares.tolist() if not 0 <= v <= 1)}; measure it "
            "again."
        )
    return np.round(np.clip(shares, 0.0, 1.0), 12)  # rates that differ by rounding are one knot
