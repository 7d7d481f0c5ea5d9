"""What a design can show: against simulation of the very test that is used, and against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from undersong.statistics.power import MAX_UNITS, detectable_difference, t_power, units_needed
from undersong.statistics.runs import paired_runs
from undersong.types import UndersongError


@pytest.mark.parametrize(("units", "comparisons"), [(3, 1), (5, 1), (12, 6)])
def test_the_promised_power_is_what_simulated_studies_have(units: int, comparisons: int) -> None:
    """4,000 studies at the detectable difference: the share that finds it is the promised one."""
    sd = 0.07
    difference = detectable_difference(units, sd, comparisons=comparisons)
    assert difference is not None
    rng = np.random.default_rng(units)
    found = 0
    for _ in range(4000):
        values = rng.normal(difference, sd, units)
        result = paired_runs(dict.fromkeys(keys(units), 0.0), dict(zip(keys(units), values.tolist())))
        found += result.p is not None and result.p < 0.05 / comparisons
    assert stats.binomtest(found, 4000, 0.8).pvalue > 0.01


def keys(units: int) -> list[tuple[int, int, int]]:
    return [(0, 0, seed) for seed in range(units)]


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 60), st.floats(0, 6), st.sampled_from([0.95, 0.99, 0.9975]))
def test_the_power_is_that_of_the_noncentral_t(units: int, effect: float, level: float) -> None:
    """Where scipy has it: its noncentral t is not a number for some large shifts."""
    df, shift = units - 1, effect * np.sqrt(units)
    edge = stats.t.ppf((1 + level) / 2, df)
    wanted = stats.nct.sf(edge, df, shift) + stats.nct.cdf(-edge, df, shift)
    if np.isfinite(wanted):
        assert t_power(effect, units, level) == pytest.approx(wanted, abs=2e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.floats(0.005, 0.5), st.integers(1, 40))
def test_the_detectable_difference_has_the_power(units: int, sd: float, comparisons: int) -> None:
    difference = detectable_difference(units, sd, comparisons=comparisons)
    assert difference is not None
    assert t_power(difference / sd, units, 1 - 0.05 / comparisons) == pytest.approx(0.8, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 0.5), st.floats(0.01, 0.3), st.integers(1, 20))
def test_the_units_needed_are_the_fewest(difference: float, sd: float, comparisons: int) -> None:
    units = units_needed(difference, sd, comparisons=comparisons)
    if units is None:
        assert t_power(difference / sd, MAX_UNITS, 1 - 0.05 / comparisons) < 0.8
        return
    smallest = detectable_difference(units, sd, comparisons=comparisons)
    assert smallest is not None
    assert smallest <= difference * (1 + 1e-6)
    if units > 2:
        larger = detectable_difference(units - 1, sd, comparisons=comparisons)
        assert larger is not None
        assert larger > difference * (1 - 1e-6)


def test_edges() -> None:
    assert detectable_difference(1, 0.1) is None
    assert detectable_difference(5, 0.0) == 0.0
    assert units_needed(0.1, 0.0) == 2
    assert units_needed(1e-6, 0.5) is None
    for wrong in (
        lambda: detectable_difference(3, -1.0),
        lambda: detectable_difference(3, 0.1, power=1.0),
        lambda: units_needed(0.0, 0.1),
        lambda: detectable_difference(3, 0.1, comparisons=0),
    ):
        with pytest.raises(UndersongError):
            wrong()
