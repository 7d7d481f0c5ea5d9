"""Looks while seeds are added: the level holds at every look, large effects end early, and futility costs no level."""

from __future__ import annotations

from functools import cache
from math import exp, inf, log

import numpy as np
import pytest
from scipy import integrate, stats

from undersong.statistics.sequential import (
    PRIOR_VARIANCE,
    conditional_power,
    critical_t,
    log_e_value,
    look,
    looks_until_decision,
)
from undersong.types import UndersongError

FIRST, MAXIMUM, SMALLEST = 3, 20, 0.1


@cache
def simulate(mean: float, sd: float, studies: int = 600) -> tuple[float, float, float, float]:
    """Shares of studies that end as shown and as futile, mean number of runs, and share that a naive t would show."""
    rng = np.random.default_rng(int(1000 * mean + 100 * sd))
    values = mean + sd * rng.standard_normal((studies, MAXIMUM))
    ends = [looks_until_decision(row.tolist(), FIRST, MAXIMUM, SMALLEST)[-1] for row in values]
    counts = np.arange(FIRST, MAXIMUM + 1)
    naive = np.zeros(studies, dtype=bool)
    for count in counts:
        naive |= stats.ttest_1samp(values[:, :count], 0, axis=1).pvalue < 0.05
    shown, futile = (np.mean([end.decision == kind for end in ends]) for kind in ("shown", "futile"))
    return float(shown), float(futile), float(np.mean([end.runs for end in ends])), float(naive.mean())


@pytest.mark.parametrize("sd", [0.02, 0.1, 0.3])
def test_looking_after_each_run_keeps_the_level(sd: float) -> None:
    shown, _, _, naive = simulate(0.0, sd)
    assert shown <= 0.05
    assert naive > 0.15  # so many would be shown by a t test at every look


def test_large_effects_are_shown_by_six_to_seven_runs() -> None:
    assert simulate(0.2, 0.1)[0] > 0.97
    assert simulate(0.2, 0.1)[2] < 7
    assert simulate(0.6, 0.1)[2] == 6


def test_an_effect_of_one_standard_deviation_is_shown_with_80_percent_power() -> None:
    shown, futile, _, _ = simulate(0.1, 0.1)
    assert shown > 0.75
    assert futile < 0.25


def test_no_effect_ends_as_futile_before_the_last_run() -> None:
    _, futile, runs, _ = simulate(0.0, 0.1)
    assert futile > 0.85
    assert runs < 15
    assert simulate(0.0, 0.02)[2] < 8


@pytest.mark.parametrize("broken", [1.0, 0.5])
def test_runs_that_break_or_hold_keep_the_level(broken: float) -> None:
    """Differences of -0.8 and 0.8 alike often, and 0 else: equal runs are common, and normal noise is no model.

    Looks from the third run on would show a difference in 13 % of these studies, and from the sixth on in 5 to 6 %.
    """
    rng, studies = np.random.default_rng(2), 300
    values = 0.8 * rng.choice([-1, 0, 1], (studies, 12), p=[broken / 2, 1 - broken, broken / 2])
    ends = [
        looks_until_decision(row.tolist(), FIRST, MAXIMUM, SMALLEST, ("shown",), resolution=1 / 36) for row in values
    ]
    assert np.mean([end[-1].decision == "shown" for end in ends]) <= 0.07


def test_runs_that_are_not_normal_keep_the_level() -> None:
    """Differences of two rates of 36 prompts near 0, where noise is skewed and equal runs are common."""
    rng, shown, studies = np.random.default_rng(1), 0, 400
    a, b = (rng.binomial(36, rng.beta(0.3, 6, (studies, MAXIMUM))) / 36 for _ in range(2))
    for row in b - a:
        looks = looks_until_decision(row.tolist(), FIRST, MAXIMUM, SMALLEST, ("shown",), resolution=1 / 36)
        shown += looks[-1].decision == "shown"
    assert shown / studies <= 0.05


def test_the_e_value_is_the_bayes_factor_of_the_t_statistic() -> None:
    t, runs = 3.2, 7

    def density(effect: float) -> float:
        return float(stats.nct.pdf(t, runs - 1, effect * runs**0.5) * stats.norm.pdf(effect, scale=PRIOR_VARIANCE**0.5))

    marginal = integrate.quad(density, -8, 8)[0] / stats.t.pdf(t, runs - 1)
    assert exp(log_e_value(t, runs)) == pytest.approx(marginal, rel=1e-5)


@pytest.mark.parametrize("runs", [6, 8, 20])
def test_the_confidence_sequence_inverts_the_e_value(runs: int) -> None:
    assert log_e_value(critical_t(runs, 0.95), runs) == pytest.approx(log(20))


def test_fewer_than_six_runs_show_nothing_whatever_they_are() -> None:
    assert critical_t(3, 0.95) == inf
    for values in ([0.6, 0.6001, 0.5999], [0.6, 0.6001, 0.5999, 0.6, 0.6]):
        found = look(values, MAXIMUM, SMALLEST)
        assert (found.low, found.high, found.decision) == (None, None, "open")


def test_equal_runs_have_the_noise_of_rounding_at_least() -> None:
    assert look([0.5] * 8, MAXIMUM, SMALLEST).decision == "open"
    rounded = look([0.5] * 8, MAXIMUM, SMALLEST, resolution=1 / 36)
    assert rounded.decision == "shown"
    assert rounded.low is not None
    assert rounded.low < 0.5


def test_futility_is_by_power_or_by_the_confidence_sequence() -> None:
    hopeless = look([0.3, -0.3, 0.25, -0.25, 0.3, -0.3] * 3, MAXIMUM, SMALLEST)
    assert hopeless.power < 0.1
    assert hopeless.decision == "futile"
    narrow = look([0.001, -0.001, 0.002, -0.002] * 4, MAXIMUM, SMALLEST)
    assert narrow.high is not None
    assert narrow.high < SMALLEST
    assert narrow.decision == "futile"
    assert conditional_power(0.0, 0.1, 20, 20, SMALLEST, 0.95) == 0.0


def test_stopping_only_when_shown_goes_on_after_futility() -> None:
    values = [0.001, -0.001, 0.002, -0.002] * 5
    assert len(looks_until_decision(values, FIRST, MAXIMUM, SMALLEST, ("shown",))) == 18
    assert looks_until_decision(values, FIRST, MAXIMUM, SMALLEST)[-1].runs == 6


@pytest.mark.parametrize(
    ("values", "smallest"), [([0.1], 0.1), ([0.1] * 21, 0.1), ([0.1, float("nan")], 0.1), ([0.1, 0.2], 0.0)]
)
def test_broken_input_is_refused(values: list[float], smallest: float) -> None:
    with pytest.raises(UndersongError):
        look(values, MAXIMUM, smallest)
