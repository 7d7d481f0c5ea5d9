"""Proportions with Wilson score intervals adjusted for clustering (design effect), and critical values."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from undersong.statistics.bootstrap import Interval
from undersong.types import LOST_VERDICTS, UndersongError


@lru_cache(maxsize=256)
def critical_value(level: float, df: int | None = None) -> float:
    """Two-sided quantile at `level`: normal, or Student's t with `df` degrees of freedom.

    Raises:
        UndersongError: The level is not between 0 and 1.
    """
    from scipy import stats

    if not 0 < level < 1:
        raise UndersongError(f"A confidence level lies between 0 and 1, not at {level}; give for example 0.95.")
    tail = (1 + level) / 2
    return float(stats.norm.ppf(tail) if df is None else stats.t.ppf(tail, df))


@dataclass(frozen=True, slots=True)
class ClusterDesign:
    """Effective sample size of the mean of `n` values in `clusters` clusters."""

    n: int
    clusters: int
    design_effect: float

    @property
    def effective_n(self) -> float:
        """Number of independent values with the same information: n over the design effect (Kish 1965), at most n."""
        return self.n / self.design_effect

    def critical_value(self, level: float) -> float:
        """Two-sided quantile of Student's t with clusters - 1 degrees of freedom, because the design effect is an
        estimate.

        Normal if nothing was estimated: every item is its own cluster, or there is only one cluster.
        """
        return critical_value(level, None if self.clusters in (1, self.n) else self.clusters - 1)


def label_codes(labels: Sequence[Hashable]) -> np.ndarray:
    """Integer codes (n,) of labels (n,), numbered in order of appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)


def cluster_design(values: np.ndarray, labels: Sequence[Hashable]) -> ClusterDesign:
    """Design effect of the mean of `values` (n,) with cluster `labels` (n,).

    It is the clustered variance of a ratio estimator (Kish 1965), with the small-sample factor C / (C - 1), over the
    variance of n independent values. It is at least 1, so clusters never make an interval narrower. If the variance
    cannot be estimated (all values equal, or one cluster), it is n / C: each cluster counts as one item, the
    conservative end.

    Raises:
        UndersongError: There are no values, or not one label per value.
    """
    n = len(values)
    if n == 0:
        raise UndersongError("There are no outcomes to take a rate of; check that the selection is not empty.")
    if len(labels) != n:
        raise UndersongError(f"There are {n} outcomes and {len(labels)} cluster labels; give one label per outcome.")
    index = label_codes(labels)
    count = int(index.max()) + 1
    if count == 1 or np.ptp(values) == 0:
        return ClusterDesign(n, count, n / count)
    residuals = values - values.mean()
    independent = float(residuals @ residuals) / (n * (n - 1))
    totals = np.bincount(index, weights=residuals)
    clustered = count / (count - 1) * float(totals @ totals) / n**2
    return ClusterDesign(n, count, max(1.0, clustered / independent))


@dataclass(frozen=True, slots=True)
class Rate:
    """Share of `n` prompts in `clusters` clusters with the outcome; its interval respects the clusters."""

    n: int
    clusters: int
    successes: int
    rate: float
    low: float
    high: float
    design_effect: float


@dataclass(frozen=True, slots=True)
class RateBounds:
    """A rate with no lost reply counted as the outcome (`low`), and with all of them counted (`high`).

    A reply is lost if it failed or could not be judged.  For jailbreaks: `low` takes them all as safe, `high` takes
    them all as jailbroken.
    """

    low: float
    high: float
    lost: int  # how many replies are lost


def score_interval(rate: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval (1927) for a share of `n` items; `n` may be fractional (an effective sample size)."""
    square = quantile**2
    center = (rate + square / (2 * n)) / (1 + square / n)
    half = quantile / (1 + square / n) * sqrt(rate * (1 - rate) / n + square / (4 * n**2))
    # min and max: rounding must not exclude the estimate from its interval (rate 0 or 1)
    return max(0.0, min(rate, center - half)), min(1.0, max(rate, center + half))


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for `successes` of `n` independent items.

    Raises:
        UndersongError: n is not positive, or the successes are not between 0 and n.
    """
    if n <= 0:
        raise UndersongError("There are no outcomes to take a rate of; check that the selection is not empty.")
    if not 0 <= successes <= n:
        raise UndersongError(f"A rate cannot count {successes} of {n}; check the counts.")
    return score_interval(successes / n, n, critical_value(level))


def as_binary(outcomes: ArrayLike) -> np.ndarray:
    """Zeros and ones, or booleans, as float64 (n,).

    Raises:
        UndersongError: A value is anything else.
    """
    values = np.asarray(outcomes, dtype=np.float64)
    if values.ndim != 1 or not np.isin(values, (0.0, 1.0)).all():
        raise UndersongError("Outcomes must be a list of zeros and ones; check what was counted.")
    return values


def clustered_rate(outcomes: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95) -> Rate:
    """Share of ones among `outcomes` (n,), with a Wilson interval at n / design effect (Korn and Graubard 1998).

    `clusters` (n,) says which outcomes are not independent: one request in three voices is one request. If all outcomes
    are equal, the design effect (`cluster_design`) cannot be estimated, and the effective n is the number of clusters,
    which is conservative. The quantile is Student's with clusters - 1 degrees of freedom. With the normal quantile,
    simulated coverage of a nominal 95 % falls to .88 for 4 clusters; with Student's it stays at or above .93 for 4 to
    36 clusters of 3 (tests). With clusters of ten and a rare outcome it can still fall to .91.
    """
    values = as_binary(outcomes)
    design = cluster_design(values, clusters)
    rate = float(values.mean())
    low, high = score_interval(rate, design.effective_n, design.critical_value(level))
    return Rate(design.n, design.clusters, int(values.sum()), rate, low, high, design.design_effect)


def clustered_mean(values: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95) -> Interval:
    """Mean of `values` (n,) with a t interval whose standard error respects the clusters (Kish 1965).

    The degrees of freedom are clusters - 1. There is no interval from a single cluster.

    Raises:
        UndersongError: There are no values, one is not finite, or labels and values differ in number.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise UndersongError("A mean needs finite values; check what was measured.")
    design = cluster_design(numbers, clusters)
    mean = float(numbers.mean())
    if design.clusters == 1:
        return Interval(mean, None, None)
    half = critical_value(level, design.clusters - 1) * float(numbers.std(ddof=1)) / sqrt(design.effective_n)
    return Interval(mean, mean - half, mean + half)


def clustered_mean_p(values: ArrayLike, clusters: Sequence[Hashable]) -> float | None:
    """Two-sided p value of a mean of 0, by the t test whose interval is `clustered_mean`.

    None from a single cluster, or if all values are equal, which shows no spread.

    Raises:
        UndersongError: There are no values, one is not finite, or labels and values differ in number.
    """
    from scipy import stats

    interval = clustered_mean(values, clusters)
    df = len(set(clusters)) - 1
    if interval.high is None or interval.high - interval.value < 1e-12:
        return None
    error = (interval.high - interval.value) / critical_value(0.95, df)
    return float(2 * stats.t.sf(abs(interval.value) / error, df))


def bounds_sentence(low: str, high: str, lost: int) -> str:
    """Bounds of a rate whose denominator holds `lost` replies without a verdict, as a phrase for readers."""
    pronoun = "one" if lost == 1 else "ones"
    return f"between {low} and {high}, whichever way the {lost:,} failed or unjudged {pronoun} went"


def rate_bounds(counts: Mapping[str, int], outcome: str = "jailbreak") -> RateBounds:
    """Compute how far lost replies could move the rate of `outcome`: the one rule for replies without a verdict.

    They stay in the denominator, no rate counts them, and the upper bound counts all of them.

    Args:
        counts: verdict words to counts; the total is the denominator.
        outcome: the verdict that the rate counts.

    Raises:
        UndersongError: the total is 0.
    """
    total = sum(counts.values())
    if total <= 0:
        raise UndersongError("There are no verdicts to bound a rate of; check that the selection is not empty.")
    certain = counts.get(outcome, 0)
    lost = sum(counts.get(verdict, 0) for verdict in LOST_VERDICTS)
    return RateBounds(certain / total, (certain + lost) / total, lost)
