"""Steps to an event: where a curve first reaches a level, and the median over runs of which some never reach it.

All runs of a study end at the same step, so a run without the event is censored there. With one common end,
Kaplan-Meier's estimate is the plain distribution of the runs, and a rank interval of its median is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, inf

import numpy as np

from undersong.statistics.runs import RunKey, unit_values
from undersong.types import UndersongError


@dataclass(frozen=True, slots=True)
class MedianStep:
    """Median step to an event over `units` independent units.

    Infinite means later than the last step. `low` and `high` are None if there are too few units for an interval: at
    95 %, six are needed.
    """

    median: float
    low: float | None
    high: float | None
    unit: str
    units: int


def first_crossing(steps: Sequence[float], values: Sequence[float], level: float, is_rising: bool) -> float:
    """First step at which a curve is at or past `level`, linear between its points; infinite if it never is.

    Args:
        steps: Steps, ascending.
        values: Value at each step.
        level: The level.
        is_rising: True if at or above the level counts, False if at or below.

    Raises:
        UndersongError: There are no points, or not one value per step, or the steps do not ascend.
    """
    if not steps or len(steps) != len(values) or any(a >= b for a, b in pairwise(steps)):
        raise UndersongError(
            f"A curve needs one value at each of its ascending steps, and has {len(values)} values at the steps "
            f"{list(steps)}; check what was measured."
        )
    excess = [(value - level) * (1 if is_rising else -1) for value in values]
    if excess[0] >= 0:
        return float(steps[0])
    for (start, below), (end, above) in pairwise(zip(steps, excess)):
        if above >= 0:
            return float(start + (end - start) * -below / (above - below))
    return inf


def median_step(events: Mapping[RunKey, float], level: float = 0.95) -> MedianStep:
    """Median of the steps at which runs reach an event, with an exact interval over independent units.

    The median is Kaplan-Meier's, the first step by which half have reached the event. Runs of one unit are reduced to
    their median first. The interval is that of the sign test, between two order statistics.

    Args:
        events: Step by (base, draw, seed); infinite if the run did not reach the event.
        level: Confidence level.

    Raises:
        UndersongError: There are no runs.
    """
    from scipy import stats

    unit, groups = unit_values(events)
    medians = [_lower_median(group) for group in groups]
    interval = stats.quantile_test(medians, p=0.5).confidence_interval(level)
    low, high = (None if np.isnan(end) else float(end) for end in (interval.low, interval.high))
    return MedianStep(_lower_median(medians), low, high, unit, len(medians))


def _lower_median(values: Sequence[float]) -> float:
    return sorted(values)[ceil(len(values) / 2) - 1]
