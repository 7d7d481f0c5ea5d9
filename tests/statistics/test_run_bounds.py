"""Bounds on a recipe's mean rate: exact where a known bound is exact, and at their level for run noise of any shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from undersong.statistics.bounded_mean import lower_mean_bound, mean_tail, units_to_exclude, upper_mean_bound
from undersong.statistics.rates import clustered_rate
from undersong.statistics.run_bounds import bound_run_mean, prompt_interval, run_mean_p
from undersong.types import UndersongError

shares = st.lists(st.floats(0, 1), min_size=1, max_size=9)


@pytest.mark.parametrize("runs", [1, 2, 3, 5, 8, 20])
def test_runs_that_break_fully_or_not_at_all_get_the_exact_binomial_bound(runs: int) -> None:
    for broken in range(runs):
        exact = stats.beta.ppf(0.975, broken + 1, runs - broken)
        assert upper_mean_bound([1.0] * broken + [0.0] * (runs - broken)) == pytest.approx(exact, abs=1e-9)
        assert lower_mean_bound([0.0] * broken + [1.0] * (runs - broken)) == pytest.approx(1 - exact, abs=1e-9)
    assert upper_mean_bound([1.0] * runs) == 1.0


@given(st.floats(0, 1), st.integers(1, 30), st.floats(0.9, 0.999))
def test_equal_runs_leave_the_share_of_broken_runs_possible(rate: float, runs: int, confidence: float) -> None:
    broken = 1 - (1 - confidence) ** (1 / runs)
    assert upper_mean_bound([rate] * runs, confidence) == pytest.approx(broken + (1 - broken) * rate, abs=1e-6)


def test_the_bound_is_the_quantile_that_its_definition_names() -> None:
    values = [0.0, 0.1, 0.1, 0.25, 0.7]
    weights = np.random.default_rng(0).dirichlet(np.ones(6), 200_000)
    drawn = float(np.quantile(weights @ np.array([*values, 1.0]), 0.975))
    assert upper_mean_bound(values) == pytest.approx(drawn, abs=0.003)


@given(shares, st.floats(0.8, 0.999))
def test_the_bounds_enclose_the_mean_and_invert_to_their_tail(values: list[float], confidence: float) -> None:
    high = upper_mean_bound(values, confidence)
    assert lower_mean_bound(values, confidence) <= np.mean(values) + 1e-9
    assert high >= np.mean(values) - 1e-9
    if min(values) < 0.99:
        assert mean_tail(values, high) == pytest.approx(1 - confidence, abs=1e-6)


def test_runs_needed() -> None:
    for limit, rate in ((0.15, 0.0), (0.15, 0.096), (0.05, 0.0)):
        units = units_to_exclude(limit, rate)
        assert units is not None
        assert upper_mean_bound([rate] * units) <= limit + 1e-9 < upper_mean_bound([rate] * (units - 1))
    assert units_to_exclude(0.15, 0.0) == 23
    assert units_to_exclude(0.15, 0.15) is None


@given(st.integers(0, 36), st.floats(0.9, 0.999))
def test_the_interval_over_prompts_at_another_level(broken: int, confidence: float) -> None:
    clusters = np.repeat(np.arange(36), 3)
    outcomes = np.repeat(np.arange(36) < broken, 3)
    stored = clustered_rate(outcomes, clusters.tolist())
    found = prompt_interval(stored.rate, stored.low, stored.high, stored.n, stored.clusters, confidence)
    anew = clustered_rate(outcomes, clusters.tolist(), 2 * confidence - 1)
    assert found == pytest.approx((anew.low, anew.high), abs=1e-9)


def test_the_p_value_is_where_the_interval_ends() -> None:
    rates = {(0, seed, seed): rate for seed, rate in enumerate((0.2, 0.3, 0.1, 0.25))}
    bounds = bound_run_mean(rates, rates)
    p = run_mean_p(lambda confidence: bound_run_mean(rates, rates, confidence), bounds.high)
    assert p == pytest.approx(0.05, rel=1e-3)
    assert run_mean_p(lambda confidence: bound_run_mean(rates, rates, confidence), 0.25) == 1.0


def test_runs_of_one_base_are_one_unit() -> None:
    rates = {(base, 0, seed): 0.1 * base for base in (1, 2) for seed in range(5)}
    assert bound_run_mean(rates, rates).units == 2
    assert bound_run_mean(rates, rates).high == pytest.approx(upper_mean_bound([0.1, 0.2]))


@pytest.mark.parametrize(("values", "message"), [([], "no runs"), ([0.2, 1.5], "not at 1.5")])
def test_what_is_no_rate_is_refused(values: list[float], message: str) -> None:
    with pytest.raises(UndersongError, match=message):
        upper_mean_bound(values)


# Run noise of known shapes: a quarter of the trainings break to 80 %, or log-odds scatter normally.
CLUSTERS, VOICES, STUDIES = 36, 3, 600
RunNoise = Callable[[np.random.Generator, int], tuple[np.ndarray, float]]


def bimodal(rng: np.random.Generator, runs: int) -> tuple[np.ndarray, float]:
    return np.where(rng.random((STUDIES, runs)) < 0.25, 0.8, 0.0), 0.2


def rarely_broken(rng: np.random.Generator, runs: int) -> tuple[np.ndarray, float]:
    """Runs that break fully, so rarely that in 9 % of studies all of them agree."""
    share = 1 - 0.09 ** (1 / runs)
    return (rng.random((STUDIES, runs)) < share).astype(float), share


def logit_normal(rng: np.random.Generator, runs: int) -> tuple[np.ndarray, float]:
    rates = 1 / (1 + np.exp(4.5 - 3.5 * rng.standard_normal((STUDIES + 20_000 // runs, runs))))
    return rates[:STUDIES], float(rates.mean())


@cache
def prompt_ends() -> list[tuple[float, float]]:
    """Rate and upper end of its interval by the number of broken clusters; a cluster is broken in all its voices."""
    labels = np.repeat(np.arange(CLUSTERS), VOICES)
    rates = [clustered_rate(labels < broken, labels.tolist()) for broken in range(CLUSTERS + 1)]
    return [(rate.rate, rate.high) for rate in rates]


def failures(noise: RunNoise, runs: int, is_too_low: Callable[[np.ndarray, float], bool]) -> float:
    """Share of studies whose ceiling lies below the true mean rate."""
    rng = np.random.default_rng(runs)
    rates, truth = noise(rng, runs)
    ends = np.array(prompt_ends())[rng.binomial(CLUSTERS, rates)]
    return float(np.mean([is_too_low(study, truth) for study in ends]))


def bound_is_too_low(study: np.ndarray, truth: float) -> bool:
    return mean_tail(study[:, 1], truth) < 0.025  # `upper_mean_bound` lies below it, without its search for a root


def old_ceiling_is_too_low(study: np.ndarray, truth: float) -> bool:
    """By the rule before: Student's interval over runs, or over prompts if that is wider or all runs agree."""
    rates, highs = study.T
    half = stats.t.ppf(0.975, len(rates) - 1) * rates.std(ddof=1) / len(rates) ** 0.5
    return bool(max(rates.mean() + half, highs.mean()) < truth)


@pytest.mark.parametrize("runs", [3, 5, 8])
@pytest.mark.parametrize("noise", [bimodal, rarely_broken, logit_normal])
def test_the_ceiling_holds_its_level_whatever_the_run_noise(noise: RunNoise, runs: int) -> None:
    # 600 studies at a true 2.5 % show more than 4.5 % in fewer than two of a thousand
    assert failures(noise, runs, bound_is_too_low) <= 0.045
    assert failures(noise, runs, lambda study, truth: mean_tail(study[:, 0], truth) < 0.025) <= 0.045  # run noise alone


@pytest.mark.parametrize(
    ("noise", "runs"), [(bimodal, 3), (bimodal, 5), (bimodal, 8), (logit_normal, 3), (logit_normal, 5)]
)
def test_the_rule_before_did_not(noise: RunNoise, runs: int) -> None:
    assert failures(noise, runs, old_ceiling_is_too_low) > 0.06


@pytest.mark.parametrize("runs", [3, 5, 8])
def test_the_simulation_sees_a_bound_at_another_level(runs: int) -> None:
    assert failures(rarely_broken, runs, lambda study, truth: mean_tail(study[:, 0], truth) < 0.1) > 0.045
