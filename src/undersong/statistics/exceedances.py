"""How many of n new values lie below a low quantile of a reference sample: exact prediction without a distribution.

If the new values come from the reference's own distribution, the share below its r-th smallest of m values has the
distribution Beta(r, m + 1 - r), whatever that distribution is (Wilks 1941). The count among n new values is then
beta-binomial.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.statistics.bootstrap import Interval
from undersong.statistics.rates import cluster_design
from undersong.types import UndersongError

MAX_TIED = 2  # times the share of values that may lie at or below a quantile


@dataclass(frozen=True, slots=True)
class LowQuantile:
    """The `rank`-th smallest of `n` reference values; `design_effect` is that of its clusters (1: none)."""

    value: float
    rank: int
    n: int
    design_effect: float


def low_quantile(values: np.ndarray, share: float, clusters: Sequence[Hashable]) -> LowQuantile:
    """The value below or at which a `share` of reference values (m,) lies, rounded down to a whole rank.

    If so many are equal to it that they are more than MAX_TIED times the share, it is the next smaller number. Then
    fewer lie below it, and counts that are predicted from the rank are upper bounds.

    Args:
        values: Reference values, (m,).
        share: The share, such as 0.01.
        clusters: Cluster of each value, (m,).

    Raises:
        UndersongError: There are too few values to have one in that share.
    """
    rank = int(np.floor(round(share * len(values), 9)))
    if rank < 1:
        raise UndersongError(
            f"{len(values)} values have no lowest {share:.0%}; give at least {int(np.ceil(1 / share))} of them."
        )
    value = np.partition(values, rank - 1)[rank - 1]
    if np.count_nonzero(values <= value) > MAX_TIED * rank:  # as where most texts share no word with any other set
        value = np.nextafter(value, -np.inf)  # of the same precision, or it would be rounded back
    return LowQuantile(
        float(value), rank, len(values), cluster_design((values <= value).astype(float), clusters).design_effect
    )


def predicted_count(quantile: LowQuantile, n: int, design_effect: float = 1.0, level: float = 0.95) -> Interval:
    """Predict the count of `n` new values of the reference's distribution at or below its quantile: mean, interval.

    Args:
        quantile: The quantile of the reference.
        n: Number of new values.
        design_effect: That of the new values' clusters: they count as n / design_effect independent ones.
        level: Level of the two-sided prediction interval.
    """
    from scipy import stats

    if n == 0:
        return Interval(0.0, 0.0, 0.0)
    independent = max(1, round(n / design_effect))
    below = quantile.rank / quantile.design_effect
    above = (quantile.n + 1 - quantile.rank) / quantile.design_effect
    tail = (1 - level) / 2
    low, high = stats.betabinom.ppf([tail, 1 - tail], independent, below, above)
    scale = n / independent
    # The count of clustered values moves in steps of `scale`: all counts below the next step are within the interval.
    return Interval(n * quantile.rank / (quantile.n + 1), float(low * scale), float((high + 1) * scale - 1))
