"""Steps to an event: crossings by hand, the median with censored runs, and the coverage of its interval."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from statsmodels.duration.survfunc import SurvfuncRight

from undersong.statistics.event_steps import first_crossing, median_step
from undersong.types import UndersongError


@pytest.mark.parametrize(
    ("values", "level", "is_rising", "step"),
    [
        ((8.0, 6.0, 2.0), 4.0, False, 15.0),  # half way from 6 to 2
        ((8.0, 4.0, 9.0), 4.0, False, 10.0),  # at a point, whatever follows
        ((8.0, 7.0, 5.0), 4.0, False, inf),
        ((0.0, 0.1, 0.9), 0.5, True, 15.0),
        ((0.6, 0.1, 0.9), 0.5, True, 0.0),  # past the level from the beginning
        ((0.0, 0.0, 0.4), 0.5, True, inf),
    ],
)
def test_a_crossing_lies_between_the_points_around_it(
    values: tuple[float, ...], level: float, is_rising: bool, step: float
) -> None:
    assert first_crossing((0, 10, 20), values, level, is_rising) == pytest.approx(step)


def test_a_curve_needs_ascending_steps_with_a_value_each() -> None:
    for steps, values in (((), ()), ((0, 10), (1.0,)), ((10, 0), (1.0, 2.0))):
        with pytest.raises(UndersongError, match="ascending"):
            first_crossing(steps, values, 0.5, True)


def test_the_median_is_kaplan_meiers_where_an_odd_number_of_runs_is_censored_at_the_end() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        steps = rng.exponential(30, 9)
        found = median_step({(0, 0, i): float(step) if step < 40 else inf for i, step in enumerate(steps)})
        expected = SurvfuncRight(np.minimum(steps, 40), steps < 40).quantile(0.5)
        assert found.median == pytest.approx(expected) if np.isfinite(expected) else found.median == inf


def test_six_units_have_an_interval_and_five_have_none() -> None:
    six = median_step({(0, 0, i): step for i, step in enumerate((5.0, 10.0, 20.0, 30.0, inf, inf))})
    assert (six.median, six.low, six.high, six.unit, six.units) == (20.0, 5.0, inf, "seed", 6)
    five = median_step({(0, 0, i): 10.0 * i for i in range(5)})
    assert (five.median, five.low, five.high) == (20.0, None, None)


def test_runs_of_one_base_count_as_one() -> None:
    found = median_step({(base, 0, seed): 10.0 * base + seed for base in range(3) for seed in range(3)})
    assert (found.median, found.low, found.unit, found.units) == (11.0, None, "base", 3)


@pytest.mark.parametrize("n", [6, 9])
def test_the_interval_of_the_median_keeps_its_level(n: int) -> None:
    """Exponential steps with a median of 25, censored at 40."""
    rng, covered = np.random.default_rng(n), 0
    for _ in range(400):
        steps = rng.exponential(25 / np.log(2), n)
        found = median_step({(0, 0, i): float(step) if step < 40 else inf for i, step in enumerate(steps)})
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 25 <= found.high
    assert covered / 400 >= 0.94  # exact: 0.969 with 6, 0.961 with 9
