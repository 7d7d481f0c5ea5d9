"""Bounds of the mean of a few values in [0, 1], for any distribution.

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

from collections.abc import Callable, Sequence
from math import ceil, log

import numpy as np

from undersong.types import UndersongError

BOUND_CONFIDENCE = 0.975  # one-sided: the ends of a 95 % interval


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
