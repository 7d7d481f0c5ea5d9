"""Run-level inference: scipy's paired t as oracle, what the independent unit is, and what cannot be said."""

from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from undersong.statistics.rates import clustered_mean
from undersong.statistics.runs import crossed_mean, mean_runs, paired_runs
from undersong.types import UndersongError

shares = st.floats(0, 1, allow_nan=False)
arms = st.lists(st.tuples(shares, shares), min_size=2, max_size=12)


def seeds(values):
    return {(0, 0, seed): float(value) for seed, value in enumerate(values)}


@given(arms)
def test_paired_runs_equal_scipy(rows):
    a, b = (np.array(column) for column in zip(*rows))
    found = paired_runs(seeds(a), seeds(b))
    assert found.n == found.units == len(rows)
    assert found.method == "paired t over runs"
    assert found.difference == pytest.approx(float(np.mean(b - a)), abs=1e-12)
    if np.ptp(b - a) < 1e-12:
        assert (found.low, found.high, found.p) == (None, None, None)
        return
    oracle = stats.ttest_rel(b, a)
    interval = oracle.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-12)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6)


@given(arms)
def test_swapping_arms_negates(rows):
    a, b = (seeds(column) for column in zip(*rows))
    there, back = paired_runs(a, b), paired_runs(b, a)
    assert back.difference == pytest.approx(-there.difference)
    assert back.p == there.p
    if there.low is not None:
        assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


def test_runs_are_paired_by_key_not_by_order():
    a = {(0, 0, 1): 0.1, (0, 0, 2): 0.5, (0, 0, 3): 0.2}
    b = {(0, 0, 3): 0.4, (0, 0, 1): 0.4, (0, 0, 2): 0.6}
    found = paired_runs(a, b)
    assert [(pair.seed, round(pair.difference, 9)) for pair in found.estimates] == [(1, 0.3), (2, 0.1), (3, 0.2)]


def test_missing_partners_are_listed():
    with pytest.raises(UndersongError) as caught:
        paired_runs({(0, 0, 1): 0.1, (0, 0, 2): 0.2}, {(0, 0, 1): 0.1, (0, 1, 3): 0.3})
    assert "b has no base 0, draw 0, seed 2" in str(caught.value)
    assert "a has no base 0, draw 1, seed 3" in str(caught.value)


def test_one_run_has_no_interval():
    found = paired_runs(seeds([0.1]), seeds([0.9]))
    assert found.difference == pytest.approx(0.8)
    assert (found.low, found.high, found.p) == (None, None, None)
    assert "Only one independent seed" in found.note


@pytest.mark.parametrize("change", [0.0, 0.1])
def test_equal_differences_do_not_claim_certainty(change):
    before = [0.1, 0.2, 0.3]
    found = paired_runs(seeds(before), seeds([value + change for value in before]))
    assert (found.low, found.high, found.p) == (None, None, None)
    assert "agree exactly" in found.note


@pytest.mark.parametrize(("units", "significant"), [(3, False), (5, False), (6, True), (8, True)])
def test_equal_differences_within_limits_are_bounded_for_any_run_noise(units, significant):
    """A fall from 1 to 0 in every run: the sign test's p value, and an interval that agrees with it."""
    found = paired_runs(seeds([1.0] * units), seeds([0.0] * units), limits=(-1, 1))
    assert found.p == pytest.approx(2 * 0.5**units)
    assert (found.low, found.high) == (-1, pytest.approx(2 * (1 - 0.025 ** (1 / units)) - 1))
    assert (found.high < 0) == (found.p < 0.05) == significant
    assert "does not exclude run noise" in found.note


def test_bases_are_the_sample_where_there_are_several():
    rng = np.random.default_rng(0)
    b = {(base, 0, seed): base / 10 + rng.random() / 100 for base in range(3) for seed in range(4)}
    found = paired_runs(dict.fromkeys(b, 0.0), b)
    means = [np.mean([value for key, value in b.items() if key[0] == base]) for base in range(3)]
    interval = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (found.n, found.units) == (12, 3)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.method == "paired t over bases, runs averaged within base"


def test_seeds_of_one_draw_are_not_further_draws():
    b = {(0, draw, seed): draw / 10 + seed / 100 for draw in range(3) for seed in range(5)}
    found = paired_runs(dict.fromkeys(b, 0.0), b)
    assert (found.n, found.units) == (15, 3)
    assert found.difference == pytest.approx(0.12)
    assert found.method == "paired t over draws, runs averaged within draw"


def test_two_runs_of_one_base_each_rest_on_two_bases():
    found = mean_runs({(0, 0, 0): 0.2, (1, 0, 0): 0.4})
    assert (found.units, found.method) == (2, "t over runs")


def test_limits_cut_the_interval_at_what_is_possible():
    wide = paired_runs(seeds([0.0, 0.0, 0.0]), seeds([0.1, 0.9, 0.5]))
    cut = paired_runs(seeds([0.0, 0.0, 0.0]), seeds([0.1, 0.9, 0.5]), limits=(-1.0, 1.0))
    assert wide.high > 1
    assert cut.high == 1
    assert cut.low == wide.low


@given(st.lists(shares, min_size=2, max_size=12))
def test_mean_runs_equal_scipy(values):
    found = mean_runs(values)
    assert found.mean == pytest.approx(float(np.mean(values)))
    assert found.mean == mean_runs(seeds(values)).mean
    if np.ptp(values) < 1e-12:
        assert found.low is found.high is None
        return
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-12)


def test_more_runs_narrow_the_interval():
    few, many = mean_runs([0.1, 0.3] * 2), mean_runs([0.1, 0.3] * 8)
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize("values", [[], [0.1, nan]])
def test_no_runs_and_no_numbers_are_errors(values):
    with pytest.raises(UndersongError):
        mean_runs(values)


def test_one_run_has_the_interval_of_its_clusters() -> None:
    values, clusters = [1.0, 1.5, 3.0, 2.0], ["a", "a", "b", "c"]
    assert crossed_mean([values], clusters) == clustered_mean(values, clusters)
    assert crossed_mean([values, values], ["a"] * 4).high is None


@pytest.mark.parametrize(("behaviors_sd", "seeds_sd", "runs"), [(1.0, 1.0, 2), (1.0, 0.5, 3), (0.2, 1.0, 3)])
def test_an_interval_over_prompts_and_seeds_covers_both(behaviors_sd: float, seeds_sd: float, runs: int) -> None:
    """Two prompts of each of ten behaviors. Without the part of the seeds, coverage falls below 0.9."""
    rng, clusters = np.random.default_rng(7), np.repeat(np.arange(10), 2).tolist()
    hits = hits_of_clusters = 0
    for _ in range(400):
        behaviors = np.repeat(rng.normal(0, behaviors_sd, 10), 2)
        table = behaviors + rng.normal(0, seeds_sd, (runs, 1)) + rng.normal(0, 0.3, (runs, 20))
        both, alone = crossed_mean(table, clusters), clustered_mean(table.mean(axis=0), clusters)
        assert both.low is not None
        assert both.high is not None
        assert alone.low is not None
        assert alone.high is not None
        hits += both.low <= 0 <= both.high
        hits_of_clusters += alone.low <= 0 <= alone.high
    assert hits / 400 >= 0.935
    assert hits_of_clusters / 400 < 0.9
