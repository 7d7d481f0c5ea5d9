"""Paired comparison of two models on the same prompts: exact McNemar test, Newcombe intervals and a sign-flip test
over clusters.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from undersong.statistics.rates import (
    Rate,
    as_binary,
    cluster_design,
    clustered_rate,
    critical_value,
    label_codes,
    score_interval,
)
from undersong.types import UndersongError


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Before and after on `n` shared prompts.  `difference` is after - before.

    `p` and `difference_low/high` take prompts as independent; `clustered_p` and `clustered_low/high` take clusters as
    the independent units, and are equal to the former where every prompt is its own cluster.  So do the intervals of
    `before` and `after`: a side has the interval that it has alone.
    """

    n: int
    before: Rate
    after: Rate
    b: int  # the outcome only before
    c: int  # the outcome only after
    p: float
    difference: float
    difference_low: float
    difference_high: float
    clusters: int
    clustered_low: float
    clustered_high: float
    clustered_p: float


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact McNemar test from the two discordant counts; 1 where there are none."""
    from scipy.stats import binomtest

    return 1.0 if b + c == 0 else float(binomtest(b, b + c, 0.5).pvalue)


def newcombe_paired(a: float, b: float, c: float, d: float, level: float = 0.95) -> tuple[float, float]:
    """Interval for first - second = (b - c) / n: method 10 of Newcombe 1998 (Statistics in Medicine 17, 2635-2650).

    `a` pairs have the outcome in both, `b` only in the first, `c` only in the second, `d` in neither.  Squares and adds
    the two Wilson intervals, with a correlation (phi) that is corrected for continuity where it is positive.
    """
    if min(a, b, c, d) < 0 or a + b + c + d <= 0:
        raise UndersongError(f"A paired table needs counts, at least one above 0, not {a}, {b}, {c}, {d}.")
    return _square_and_add(a, b, c, d, critical_value(level))


def _square_and_add(a: float, b: float, c: float, d: float, quantile: float) -> tuple[float, float]:
    n = a + b + c + d
    first, second = (a + b) / n, (a + c) / n
    low1, high1 = score_interval(first, n, quantile)
    low2, high2 = score_interval(second, n, quantile)
    phi = _corrected_phi(a, b, c, d)

    def half_width(x: float, y: float) -> float:
        return sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    difference = (b - c) / n
    low = difference - half_width(first - low1, high2 - second)
    high = difference + half_width(second - low2, high1 - first)
    return max(-1.0, low), min(1.0, high)


def _corrected_phi(a: float, b: float, c: float, d: float) -> float:
    """Phi of the table; n / 2 is taken off a positive numerator, down to 0.  0 where a margin is empty."""
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    numerator = a * d - b * c
    if numerator > 0:
        numerator = max(0.0, numerator - (a + b + c + d) / 2)
    return numerator / sqrt(margins)


def sign_flip_test(totals: ArrayLike) -> float:
    """Exact two-sided sign-flip test of whole-number differences `totals`, one a cluster.

    The null swaps before and after for whole clusters.  The distribution of the sum over all 2^C flips is built by
    convolution, so it is exact for any number of clusters and needs no seed.  With clusters of one prompt it is
    McNemar's exact test.
    """
    steps = np.abs(np.asarray(totals, dtype=np.int64))
    largest_sum = int(steps.sum())
    chances = np.ones(1)  # chances[i]: that the signed sum of the steps so far is i - their plain sum
    for step in steps[steps > 0].tolist():
        longer = np.zeros(len(chances) + 2 * step)
        longer[: len(chances)] += chances / 2
        longer[2 * step :] += chances / 2
        chances = longer
    observed = abs(int(np.asarray(totals, dtype=np.int64).sum()))
    sums = np.arange(len(chances)) - largest_sum
    return min(1.0, float(chances[np.abs(sums) >= observed].sum()))


def compare_paired(
    before: ArrayLike, after: ArrayLike, clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> PairedComparison:
    """Compare outcomes `before` (n,) and `after` (n,) of the same prompts in the same order.

    The clustered interval is Newcombe's at n / design effect of the differences, with Student's quantile at
    clusters - 1 degrees of freedom: unlike a cluster bootstrap it is not of width 0 where no prompt changed.
    `clusters` None: every prompt is its own.  Raises UndersongError on no pairs or unequal lengths.
    """
    first, second = as_binary(before), as_binary(after)
    if len(first) != len(second):
        raise UndersongError(
            f"There are {len(first)} outcomes before and {len(second)} after; pair them by prompt first."
        )
    change = second - first
    labels: Sequence[Hashable] = range(len(change)) if clusters is None else clusters
    design = cluster_design(change, labels)
    n, both = design.n, int((first * second).sum())
    b, c = int((change < 0).sum()), int((change > 0).sum())
    neither = n - both - b - c
    low, high = newcombe_paired(both, c, b, neither, level)
    deff, quantile = design.design_effect, design.critical_value(level)
    clustered_low, clustered_high = _square_and_add(both / deff, c / deff, b / deff, neither / deff, quantile)
    return PairedComparison(
        n=n,
        before=clustered_rate(first, labels, level),
        after=clustered_rate(second, labels, level),
        b=b,
        c=c,
        p=mcnemar_exact(b, c),
        difference=(c - b) / n,
        difference_low=low,
        difference_high=high,
        clusters=design.clusters,
        clustered_low=clustered_low,
        clustered_high=clustered_high,
        clustered_p=sign_flip_test(np.bincount(label_codes(labels), weights=change).round()),
    )
