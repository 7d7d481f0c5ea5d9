"""Wilson's coverage: equal to independent computations, with its mean and its worst as no grid finds them."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint
from wilson_coverage import wilson_coverage, wilson_coverage_range

from undersong.statistics.rates import wilson_interval
from undersong.types import UndersongError

levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])
lows, highs = (st.integers(a, b).map(lambda x: x / 1000) for a, b in ((0, 400), (600, 1000)))


def independent(n: int, rate: float, level: float) -> float:
    """All counts, one by one, with another library's interval."""
    counts = np.arange(n + 1)
    low, high = proportion_confint(counts, n, 1 - level, method="wilson")
    held = (low <= rate) & (rate <= high)
    return float(np.sum(binom.pmf(counts, n, rate) * held))


@given(st.integers(1, 400), st.floats(0.001, 0.999), levels)
def test_it_equals_statsmodels_and_scipy(n: int, rate: float, level: float) -> None:
    assert wilson_coverage(n, rate, level) == pytest.approx(independent(n, rate, level), abs=1e-9)


@pytest.mark.parametrize("n", [36, 108, 520, 939])
def test_it_equals_both_at_the_sizes_of_the_study(n: int) -> None:
    for rate in np.linspace(0.0005, 0.9995, 301):
        assert wilson_coverage(n, float(rate)) == pytest.approx(independent(n, float(rate), 0.95), abs=1e-9)


def test_it_equals_rational_arithmetic() -> None:
    n, rate = 36, Fraction(7, 50)
    held = [k for k in range(n + 1) if wilson_interval(k, n)[0] <= rate <= wilson_interval(k, n)[1]]
    exact = sum(comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in held)
    assert wilson_coverage(n, float(rate)) == pytest.approx(float(exact), abs=1e-12)


@settings(max_examples=25)
@given(st.integers(1, 60), levels, lows, highs)
def test_the_mean_is_the_integral(n: int, level: float, low: float, high: float) -> None:
    ends = sorted({low, high, *(e for k in range(n + 1) for e in wilson_interval(k, n, level) if low < e < high)})
    whole = sum(quad(wilson_coverage_of(n, (a + b) / 2, level), a, b, epsabs=1e-12)[0] for a, b in pairwise(ends))
    assert wilson_coverage_range(n, level, low, high).mean == pytest.approx(whole / (high - low), abs=1e-9)


def wilson_coverage_of(n: int, middle: float, level: float):
    """Coverage as a function of the share, by the counts whose interval holds `middle`."""
    held = [k for k in range(n + 1) if wilson_interval(k, n, level)[0] <= middle <= wilson_interval(k, n, level)[1]]
    return lambda rate: binom.pmf(held, n, rate).sum()


@settings(max_examples=25)
@given(st.integers(1, 120), levels, lows, highs)
def test_no_grid_finds_worse_than_the_worst_and_one_comes_near(n: int, level: float, low: float, high: float) -> None:
    found = wilson_coverage_range(n, level, low, high)
    grid = np.linspace(low, high, 400)
    assert min(wilson_coverage(n, float(rate), level) for rate in grid) >= found.worst - 1e-12
    beside = [found.worst_rate + step for step in (-1e-9, 1e-9, 0.0) if 0 <= found.worst_rate + step <= 1]
    assert min(wilson_coverage(n, rate, level) for rate in beside) == pytest.approx(found.worst, abs=1e-5)
    assert found.worst - 1e-12 <= found.mean <= 1 + 1e-12


def test_what_is_reported_of_the_study_sizes() -> None:
    """The mean is the nominal one; the worst is at a share of some .18 / n whatever n is, and goes where rates do."""
    for n in (36, 108, 520, 939):
        whole, inner = wilson_coverage_range(n), wilson_coverage_range(n, low=0.05, high=0.95)
        assert 0.950 < whole.mean < 0.953
        assert 0.837 < whole.worst < 0.839
        assert whole.worst_rate == pytest.approx(0.177 / n, rel=0.01)
        assert inner.worst > 0.918
    assert wilson_coverage_range(520, low=0.05, high=0.95).worst > 0.94


def test_edges() -> None:
    assert wilson_coverage(10, 0.0) == wilson_coverage(10, 1.0) == 1
    for wrong in (
        lambda: wilson_coverage(0, 0.5),
        lambda: wilson_coverage(5, 1.5),
        lambda: wilson_coverage_range(5, low=0.5, high=0.5),
        lambda: wilson_coverage_range(5, low=0.6, high=0.5),
        lambda: wilson_coverage_range(5, level=95),
    ):
        with pytest.raises(UndersongError):
            wrong()
