"""Bounds of a recipe's mean rate over training runs, for any run noise and with the error over prompts.

The bound is that of `bounded_mean`, which says where it is from and why an interval over runs is not enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log

import numpy as np

from undersong.statistics.bounded_mean import BOUND_CONFIDENCE, lower_mean_bound, upper_mean_bound
from undersong.statistics.rates import critical_value, score_interval
from undersong.statistics.runs import RunKey, ValueRange, unit_means

SHARES: ValueRange = (0.0, 1.0)
MIN_TAIL = 1e-9  # the smallest p value that is looked for


@dataclass(frozen=True, slots=True)
class RunBounds:
    """One-sided bounds of a recipe's mean over independent units; each holds with `confidence`."""

    units: int
    low: float
    high: float
    confidence: float


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


def bound_change_from_base(
    before: Mapping[RunKey, ValueRange], after: Mapping[RunKey, ValueRange], confidence: float = BOUND_CONFIDENCE
) -> RunBounds:
    """Bounds of the mean change of a rate from the base, which has no run noise.

    Args:
        before: Interval over prompts of the base's rate, at the same one-sided confidence, for each run.
        after: That of the run.
        confidence: One-sided confidence of either bound.
    """
    lows = {key: low - before[key][1] for key, (low, _) in after.items()}
    highs = {key: high - before[key][0] for key, (_, high) in after.items()}
    limits = -max(high for _, high in before.values()), 1 - min(low for low, _ in before.values())
    return bound_run_mean(lows, highs, confidence, limits)


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
