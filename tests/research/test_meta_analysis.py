"""Random effects: against published numbers, against Student's interval, and by simulation of coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.research.statistics.meta_analysis import pooled_variances, random_effects
from undersong.statistics.runs import paired_runs
from undersong.types import UndersongError

# Normand 1999, Statistics in Medicine 18, table III, as in metafor's dat.normand1999 (mean differences of stay in days)
STAYS = (-15.0, -39.0, -5.0, -2.0, -10.0, -20.0, -1.0, -11.0, 7.0)
STAY_VARIANCES = (40.59, 8.81, 30.34, 10.12, 21.73, 46.69, 6.53, 22.38, 20.70)


def paule_mandel(effects: np.ndarray, variances: np.ndarray, tau_squared: float) -> float:
    weights = 1 / (variances + tau_squared)
    mean = weights @ effects / weights.sum()
    return float(weights @ (effects - mean) ** 2)


def test_q_tau_and_i_squared_follow_their_formulas() -> None:
    effects, variances = np.array(STAYS), np.array(STAY_VARIANCES)
    weights = 1 / variances
    fixed = weights @ effects / weights.sum()
    q = float(weights @ (effects - fixed) ** 2)
    tau_squared = (q - 8) / (weights.sum() - (weights**2).sum() / weights.sum())
    found = random_effects(STAYS, STAY_VARIANCES, method="dersimonian-laird")
    assert found.heterogeneity is not None
    assert found.heterogeneity.q == pytest.approx(q)
    assert found.heterogeneity.tau**2 == pytest.approx(tau_squared)
    assert found.heterogeneity.i_squared == pytest.approx(1 - 8 / q)
    assert found.mean == pytest.approx(
        (effects / (variances + tau_squared)).sum() / (1 / (variances + tau_squared)).sum()
    )


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(1e-4, 0.1)), min_size=2, max_size=12))
def test_paule_mandel_solves_its_equation(units: list[tuple[float, float]]) -> None:
    effects, variances = np.array(units).T
    found = random_effects(effects.tolist(), variances.tolist())
    assert found.heterogeneity is not None
    tau_squared, df = found.heterogeneity.tau**2, len(units) - 1
    if tau_squared > 0:
        assert paule_mandel(effects, variances, tau_squared) == pytest.approx(df, abs=1e-3)
    else:
        assert paule_mandel(effects, variances, 0.0) <= df + 1e-3
    assert sum(found.weights) == pytest.approx(1)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.mean <= found.high


@pytest.mark.parametrize("method", ["paule-mandel", "dersimonian-laird"])
def test_units_that_agree_better_than_chance_do_not_narrow_the_interval(method: str) -> None:
    found = random_effects([0.30, 0.31, 0.32], [0.01, 0.01, 0.01], method=method)  # type: ignore[arg-type]
    assert found.heterogeneity is not None
    assert (found.heterogeneity.tau, found.heterogeneity.i_squared) == (0, 0)
    assert found.mean == pytest.approx(0.31)
    assert found.low == pytest.approx(0.31 - 4.3027 * np.sqrt(0.01 / 3), abs=1e-4)


def test_without_replicates_the_interval_is_students() -> None:
    effects = [0.2, 0.5, 0.3, 0.45]
    plain = paired_runs({(i, 0, 0): 0.0 for i in range(4)}, {(i, 0, 0): value for i, value in enumerate(effects)})
    found = random_effects(effects, None)
    assert (found.mean, found.low, found.high, found.p) == pytest.approx(
        (plain.difference, plain.low, plain.high, plain.p)
    )
    assert found.heterogeneity is None
    assert "run noise is unknown" in found.note


def test_equal_and_single_units_have_no_interval() -> None:
    for found in (random_effects([0.4, 0.4, 0.4], None), random_effects([0.4], [0.01])):
        assert (found.mean, found.low, found.high, found.p) == (0.4, None, None, None)
        assert found.note


def test_the_prediction_interval_is_wider_and_needs_three_units() -> None:
    three, two = random_effects([0.1, 0.4, 0.6], [0.01] * 3), random_effects([0.1, 0.4], [0.01] * 2)
    assert three.prediction_low is not None
    assert three.low is not None
    assert three.prediction_low < three.low
    assert two.prediction_low is None
    assert "no prediction interval" in two.note


def test_intervals_are_cut_at_the_range_of_differences() -> None:
    found = random_effects([0.1, 0.9, 0.5], [0.01] * 3, limits=(-1.0, 1.0))
    assert found.high == 1.0


def test_variances_are_pooled_over_units() -> None:
    assert pooled_variances([[0.1, 0.3], [0.5, 0.5, 0.5, 0.5], [0.7]]) == pytest.approx([0.005 / 2, 0.005 / 4, 0.005])
    assert pooled_variances([[0.1], [0.5]]) is None
    assert pooled_variances([[0.1, 0.1], [0.5, 0.5]]) is None


@pytest.mark.parametrize(
    ("effects", "variances"), [([], []), ([0.1], []), ([0.1, 0.2], [0.1, 0.0]), ([float("nan"), 0.1], [0.1, 0.1])]
)
def test_broken_numbers_are_refused(effects: list[float], variances: list[float]) -> None:
    with pytest.raises(UndersongError):
        random_effects(effects, variances)


def coverage(units: int, tau: float, noise: tuple[float, float], pooled: bool, studies: int = 400) -> float:
    """Share of intervals that hold the mean, for units with 3 runs each and two sizes of run noise."""
    rng, hits = np.random.default_rng(units), 0
    sds = np.where(np.arange(units) % 2 == 0, *noise)
    for _ in range(studies):
        true_effects = 0.3 + tau * rng.standard_normal(units)
        runs = true_effects[:, None] + sds[:, None] * rng.standard_normal((units, 3))
        variances = pooled_variances(runs.tolist()) if pooled else (runs.var(axis=1, ddof=1) / 3).tolist()
        found = random_effects(runs.mean(axis=1).tolist(), variances)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.3 <= found.high
    return hits / studies


@pytest.mark.parametrize(
    ("units", "tau", "noise"), [(4, 0.2, (0.05, 0.05)), (4, 0.05, (0.02, 0.2)), (10, 0.1, (0.02, 0.2))]
)
def test_intervals_of_few_units_hold_their_level(units: int, tau: float, noise: tuple[float, float]) -> None:
    assert coverage(units, tau, noise, pooled=True) >= 0.925


def test_each_units_own_variance_would_lose_the_level() -> None:
    assert coverage(4, 0.05, (0.02, 0.2), pooled=False) < 0.91
