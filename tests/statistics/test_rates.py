"""Rates: oracles, degenerate cases, properties, and the simulated coverage of the clustered interval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t
from statsmodels.stats.proportion import proportion_confint

from undersong.statistics.rates import clustered_rate, rate_bounds, wilson_interval
from undersong.types import UndersongError

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
labelled = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=60)


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy_and_statsmodels(count, level):
    successes, n = count
    ours = wilson_interval(successes, n, level)
    theirs = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours == pytest.approx(proportion_confint(successes, n, 1 - level, method="wilson"), abs=1e-12)


@given(counts)
def test_wilson_contains_its_estimate_and_mirrors(count):
    successes, n = count
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(counts, st.integers(2, 5))
def test_wilson_narrows_with_n(count, times):
    successes, n = count
    low, high = wilson_interval(successes, n)
    closer = wilson_interval(successes * times, n * times)
    assert closer[1] - closer[0] < high - low


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_impossible_counts_are_errors(successes, n):
    with pytest.raises(UndersongError):
        wilson_interval(successes, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_level_is_a_share(level):
    with pytest.raises(UndersongError, match="level"):
        wilson_interval(1, 2, level)


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_prompts_that_are_their_own_cluster_give_wilson(outcomes):
    rate = clustered_rate(outcomes, [f"p{i}" for i in range(len(outcomes))])
    assert (rate.low, rate.high) == pytest.approx(wilson_interval(sum(outcomes), len(outcomes)), abs=1e-12)
    assert rate.design_effect == pytest.approx(1)
    assert rate.clusters == rate.n == len(outcomes)


def naive_design_effect(outcomes, clusters):
    """The ratio estimator's variance, written as a loop over clusters, over that of independent outcomes."""
    n, names = len(outcomes), sorted(set(clusters))
    rate = sum(outcomes) / n
    squares = 0.0
    for name in names:
        inside = [outcome for outcome, cluster in zip(outcomes, clusters) if cluster == name]
        squares += (sum(inside) - rate * len(inside)) ** 2
    clustered = len(names) / (len(names) - 1) * squares / n**2
    return max(1.0, clustered / (rate * (1 - rate) / (n - 1)))


@given(labelled)
def test_clustered_rate_equals_a_naive_loop(rows):
    outcomes, clusters = [row[0] for row in rows], [row[1] for row in rows]
    found = clustered_rate(outcomes, clusters)
    n, names = len(rows), len(set(clusters))
    expected = n / names if names == 1 or len(set(outcomes)) == 1 else naive_design_effect(outcomes, clusters)
    assert found.design_effect == pytest.approx(expected)
    quantile = norm.ppf(0.975) if names in (1, n) else t.ppf(0.975, names - 1)
    size, rate = n / expected, sum(outcomes) / n
    centre = (rate + quantile**2 / (2 * size)) / (1 + quantile**2 / size)
    half = quantile / (1 + quantile**2 / size) * np.sqrt(rate * (1 - rate) / size + quantile**2 / (4 * size**2))
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)


@given(labelled)
def test_clusters_never_narrow_the_interval(rows):
    found = clustered_rate([row[0] for row in rows], [row[1] for row in rows])
    low, high = wilson_interval(found.successes, found.n)
    assert 0 <= found.low <= found.rate <= found.high <= 1
    assert found.low <= low + 1e-12
    assert found.high >= high - 1e-12


@given(labelled)
def test_cluster_names_and_order_do_not_matter(rows):
    renamed = [(outcome, f"voice {cluster}") for outcome, cluster in reversed(rows)]
    first, second = (clustered_rate([r[0] for r in part], [r[1] for r in part]) for part in (rows, renamed))
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)


def test_equal_outcomes_count_each_cluster_once():
    rate = clustered_rate([0] * 108, np.repeat(np.arange(36), 3).tolist())
    assert rate.design_effect == 3
    square = t.ppf(0.975, 35) ** 2
    assert (rate.low, rate.high) == pytest.approx((0, square / (36 + square)))
    assert rate.high > wilson_interval(0, 108)[1]


def test_three_voices_of_one_request_are_one_request():
    requests = [1] * 9 + [0] * 27
    copied = clustered_rate(np.repeat(requests, 3), np.repeat(np.arange(36), 3).tolist())
    assert copied.design_effect == pytest.approx(107 / 35)
    low, high = wilson_interval(9, 36)
    assert copied.low < low
    assert copied.high > high


@pytest.mark.parametrize(
    ("outcomes", "clusters"), [([], []), ([1, 0], ["a"]), ([0, 2], ["a", "b"]), ([0, np.nan], ["a", "b"])]
)
def test_what_is_not_a_list_of_outcomes_is_an_error(outcomes, clusters):
    with pytest.raises(UndersongError):
        clustered_rate(outcomes, clusters)


def test_bounds_count_errors_either_way():
    counted = {"jailbreak": 5, "refusal": 10, "other": 1, "unparsed": 3, "error": 1}
    assert rate_bounds(counted).low == pytest.approx(5 / 20)
    assert rate_bounds(counted).high == pytest.approx(9 / 20)
    assert rate_bounds(counted, "refusal").high == pytest.approx(14 / 20)
    assert rate_bounds({"refusal": 4}).high == 0
    with pytest.raises(UndersongError):
        rate_bounds({})


def coverage(clusters, size, rate, correlation, repeats, seed):
    """Share of beta-binomial samples whose 95 % interval holds the true rate."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(clusters), size).tolist()
    spread = (1 - correlation) / correlation
    held = 0
    for _ in range(repeats):
        own = rng.beta(rate * spread, (1 - rate) * spread, clusters)
        found = clustered_rate(rng.random(clusters * size) < np.repeat(own, size), labels)
        held += found.low <= rate <= found.high
    return held / repeats


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_coverage_of_36_requests_in_three_voices(rate):
    assert coverage(36, 3, rate, correlation=0.5, repeats=1500, seed=1) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [4, 6, 12, 36])
@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("correlation", [0.01, 0.2, 0.5, 0.9])
def test_coverage_over_the_grid(clusters, rate, correlation):
    assert coverage(clusters, 3, rate, correlation, repeats=4000, seed=2) >= 0.93
