"""Looks at a mean while runs are added: an e-value and a confidence sequence that keep their level at every look.

The e-value is the t test's Bayes factor for a mean of unknown scale, with a normal prior on the effect in standard
deviations. Under normal runs with mean 0 it exceeds 1 / alpha at any time with probability alpha at most, so it needs
no schedule of looks (Lai 1976, Annals of Statistics 4; Wang and Ramdas 2023, arXiv 2310.03722).
The simulation that chose it over betting on a bounded mean and alpha spending is in `docs/explanation/statistics.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, isfinite, log, log1p, sqrt
from typing import Literal

import numpy as np

from undersong.types import UndersongError

PRIOR_VARIANCE = 4.0  # of the effect in standard deviations: effects of training are a few of them
FUTILITY_POWER = 0.1  # below this conditional power at the smallest effect of interest, more runs are futile
# Runs whose noise is symmetric all lie on one side of 0 by chance in 2 * 0.5**6 = 3 % of cases, whatever its shape. Of
# four runs it would be 12 %, which an e-value for normal noise does not see: a run that breaks or holds is not normal.
MIN_RUNS = 6

Decision = Literal["shown", "futile", "open"]


@dataclass(frozen=True, slots=True)
class SequentialLook:
    """What is known after `runs` runs.

    Attributes:
        runs: Number of runs.
        mean: Their mean.
        low: Lower end of the confidence sequence; None while it is unbounded, with fewer than six runs.
        high: Upper end.
        e_value: Evidence against a mean of 0; 1 / alpha or more shows a difference.
        power: Probability of showing a difference with the largest number of runs, given these runs.
        decision: `shown`: the confidence sequence leaves 0 out. `futile`: it leaves out the smallest effects of
            interest, or `power` is below 10 %. Else `open`.
    """

    runs: int
    mean: float
    low: float | None
    high: float | None
    e_value: float
    power: float
    decision: Decision


def look(
    values: Sequence[float], maximum: int, smallest: float, level: float = 0.95, resolution: float = 0.0
) -> SequentialLook:
    """Look at the mean of independent runs.

    Args:
        values: Paired difference of each run so far.
        maximum: Largest number of runs.
        smallest: Smallest effect of interest, above 0.
        level: Confidence level of all looks together.
        resolution: Step of a rate, 1 / prompts. The variance of a difference is taken as no smaller than that of
            rounding both rates, so that equal runs do not count as free of noise.

    Raises:
        UndersongError: There are fewer than two runs or more than `maximum`, a value is not finite, or an argument is
            out of range.
    """
    runs = np.asarray(values, dtype=np.float64)
    count = len(runs)
    if not 2 <= count <= maximum or not np.isfinite(runs).all():
        raise UndersongError(f"A look needs 2 to {maximum} runs with finite results, not {count}.")
    if not (isfinite(smallest) and smallest > 0 and 0 < level < 1 and resolution >= 0):
        raise UndersongError(
            f"The smallest effect of interest is above 0 and a level between 0 and 1, not {smallest} and {level}."
        )
    mean, sd = float(runs.mean()), max(float(runs.std(ddof=1)), resolution / sqrt(6))
    if sd < 1e-12:  # of whole runs without rounding: nothing shows their noise
        return SequentialLook(count, mean, None, None, 1.0, 1.0, "open")
    error = sd / sqrt(count)
    half = critical_t(count, level) * error if count >= MIN_RUNS else inf
    low, high = (mean - half, mean + half) if isfinite(half) else (None, None)
    power = conditional_power(mean, sd, count, maximum, smallest, level)
    decision: Decision = "open"
    if low is not None and high is not None and (low > 0 or high < 0):
        decision = "shown"
    elif power < FUTILITY_POWER or (low is not None and high is not None and -smallest < low and high < smallest):
        decision = "futile"
    return SequentialLook(count, mean, low, high, exp(min(700.0, log_e_value(mean / error, count))), power, decision)


def log_e_value(t: float, runs: int) -> float:
    """Logarithm of the e-value of a t statistic of `runs` runs."""
    df, shrink = runs - 1, 1 + runs * PRIOR_VARIANCE
    return -0.5 * log(shrink) + runs / 2 * (log1p(t * t / df) - log1p(t * t / df / shrink))


def critical_t(runs: int, level: float) -> float:
    """The t statistic at which the e-value is 1 / (1 - level); infinite if no t of so few runs reaches it."""
    df, shrink = runs - 1, 1 + runs * PRIOR_VARIANCE
    ratio = exp(2 / runs * (0.5 * log(shrink) - log(1 - level)))
    return inf if ratio >= shrink else sqrt(df * (ratio - 1) / (1 - ratio / shrink))


def conditional_power(mean: float, sd: float, runs: int, maximum: int, smallest: float, level: float) -> float:
    """Probability of showing a difference at the last run, given the runs so far.

    The further runs are taken to have the mean of these runs, or the smallest effect of interest if that is larger: an
    effect is not given up because a smaller one could not be shown. Student's distribution accounts for the standard
    deviation being an estimate.

    Args:
        mean: Mean of the runs so far.
        sd: Their standard deviation.
        runs: Their number.
        maximum: Largest number of runs.
        smallest: Smallest effect of interest.
        level: Confidence level.
    """
    from scipy import stats

    remaining, needed = maximum - runs, critical_t(maximum, level) * sd / sqrt(maximum)
    if remaining == 0:
        return float(abs(mean) >= needed)
    effect = max(abs(mean), smallest)  # of the sign that the runs so far favor
    expected = (abs(runs * mean) + remaining * effect) / maximum
    return float(stats.t.sf((needed - expected) / (sd * sqrt(remaining) / maximum), runs - 1))


def looks_until_decision(
    values: Sequence[float],
    first: int,
    maximum: int,
    smallest: float,
    stop: Sequence[Decision] = ("shown", "futile"),
    level: float = 0.95,
    resolution: float = 0.0,
) -> list[SequentialLook]:
    """Look after `first` runs and after each further one, until a decision in `stop` or until the values end.

    Args:
        values: Paired difference of each run, in the order in which runs are added.
        first: Number of runs at the first look.
        maximum: Largest number of runs.
        smallest: Smallest effect of interest.
        stop: Decisions that end the runs.
        level: Confidence level of all looks together.
        resolution: Step of a rate; see `look`.
    """
    looks: list[SequentialLook] = []
    for count in range(first, len(values) + 1):
        looks.append(look(values[:count], maximum, smallest, level, resolution))
        if looks[-1].decision in stop:
            break
    return looks
