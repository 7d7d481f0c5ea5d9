"""Paired comparison of two models on the same prompts: exact McNemar test, Newcombe intervals and a sign-flip test over
clusters."""

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
    """Outcomes before and after on `n` shared prompts; `difference` is after - before.

    `p`, `difference_low` and `difference_high` treat prompts as independent. `clustered_p`, `clustered_low` and
    `clustered_high` treat clusters as the independent units; they are equal to the former if every prompt is its own
    cluster. The intervals of `before` and `after` are clustered too, as if each were measured alone.
    """

    n: int
    before: Rate
    after: Rate
    b: int  # prompts with the outcome only before
    c: int  # prompts with the outcome only after
    p: float
    difference: float
    difference_low: float
    difference_high: float
    clusters: int
    clustered_low: float
    clustered_high: float
    clustered_p: float


def mcnemar_exact(b: int, c: int) -> float:
    """P value of the two-sided exact McNemar test from the two discordant counts; 1 if both are 0."""
    from scipy.stats import binomtest

    return 1.0 if b + c == 0 else float(binomtest(b, b + c, 0.5).pvalue)


def newcombe_paired(a: float, b: float, c: float, d: float, level: float = 0.95) -> tuple[float, float]:
    """Interval for first - second = (b - c) / n, method 10 of Newcombe 1998 (Statistics in Medicine 17, 2635-2650).

    It squares and adds the two Wilson intervals. Their correlation (phi) is corrected for continuity if it is positive.

    Args:
        a: Pairs with the outcome in both.
        b: Pairs with the outcome only in the first.
        c: Pairs with the outcome only in the second.
        d: Pairs with the outcome in neither.
        level: Confidence level.

    Raises:
        UndersongError: A count is negative, or all are 0.
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
    """Phi of the table, with n / 2 subtracted from a positive numerator, down to 0. It is 0 if a margin is empty."""
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    numerator = a * d - b * c
    if numerator > 0:
        numerator = max(0.0, numerator - (a + b + c + d) / 2)
    return numerator / sqrt(margins)


def sign_flip_test(totals: ArrayLike) -> float:
    """P value of the exact two-sided sign-flip test of integer differences `totals` (clusters,).

    The null swaps before and after for whole clusters. The distribution of the sum over all 2^C flips is built by
    convolution, so it is exact for any number of clusters and needs no seed. With clusters of one prompt it is
    McNemar's exact test.
    """
    steps = np.abs(np.asarray(totals, dtype=np.int64))
    largest_sum = int(steps.sum())
    chances = np.ones(1)  # chances[i]: probability that the signed sum of the steps so far is i - their unsigned sum
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
    """Compare outcomes of the same prompts before and after, in the same order.

    The clustered interval is Newcombe's at n / design effect of the differences, with Student's quantile at clusters -
    1 degrees of freedom. Unlike a cluster bootstrap it does not have width 0 if no prompt changed.

    Args:
        before: Zeros and ones, (n,).
        after: Zeros and ones, (n,).
        clusters: Cluster of each prompt, (n,); None if every prompt is its own.
        level: Confidence level.

    Raises:
        UndersongError: There are no pairs, or the lengths differ.
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
