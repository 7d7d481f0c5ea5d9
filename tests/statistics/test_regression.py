"""Predictors one by one and together: against scipy and statsmodels, and in simulation."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.outliers_influence import variance_inflation_factor

from undersong.statistics.regression import correlate_with_outcome
from undersong.types import UndersongError


def data(seed: int, points: int = 30, axes: int = 3) -> tuple[np.ndarray, list[list[float]]]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((points, axes))
    x[:, 1] = 0.6 * x[:, 0] + 0.8 * x[:, 1]
    y = 0.5 * x[:, 0] + 0.1 * x[:, 2]
    return x, [(mean + 0.2 * rng.standard_normal(1 + i % 3)).tolist() for i, mean in enumerate(y)]


def test_the_numbers_are_those_of_the_libraries() -> None:
    x, outcomes = data(0)
    y = np.array([np.mean(values) for values in outcomes])
    scaled = (x - x.mean(0)) / x.std(0)
    joint = sm.OLS(y, sm.add_constant(scaled)).fit().params[1:]
    found = correlate_with_outcome(("a", "b", "c"), x, outcomes, draws=20)
    assert (found.points, found.replicates, found.note) == (30, sum(map(len, outcomes)), "")
    for i, one in enumerate(found.predictors):
        assert one.rank.value == pytest.approx(stats.spearmanr(x[:, i], y).statistic)
        assert one.slope.value == pytest.approx(stats.linregress(scaled[:, i], y).slope)
        assert one.joint.value == pytest.approx(joint[i])
        assert one.inflation == pytest.approx(variance_inflation_factor(sm.add_constant(scaled), i + 1))
    assert sum(one.dominant for one in found.predictors) == pytest.approx(1)


def test_a_correlated_bystander_is_told_from_the_cause() -> None:
    """Axis b goes along with the outcome only because it goes along with a."""
    x, outcomes = data(1, points=60)
    a, b, _ = correlate_with_outcome(("a", "b", "c"), x, outcomes, draws=300).predictors
    assert b.slope.low > 0  # alone it seems to matter
    assert b.joint.low < 0 < b.joint.high
    assert a.joint.low > 0
    assert a.dominant > 0.95


def test_the_joint_interval_covers() -> None:
    """150 simulated studies of 24 points with two replicates each; the true joint slope of axis a is .5 of an SD."""
    inside = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((24, 2))
        outcomes = [[0.5 * row[0] + 0.3 * rng.standard_normal() for _ in range(2)] for row in x]
        (one, _) = correlate_with_outcome(("a", "b"), x, outcomes, draws=120, seed=seed).predictors
        inside += one.joint.low <= 0.5 * x[:, 0].std() <= one.joint.high
    # Percentile intervals run a little short: nominally 95 %, here not below 90 %.
    assert stats.binomtest(inside, 150, 0.9, alternative="less").pvalue > 0.01


@pytest.mark.parametrize("points", [2, 3, 5, 7])
def test_there_is_no_rank_correlation_of_fewer_than_eight_points(points: int) -> None:
    x, outcomes = data(2, points=points)
    few = correlate_with_outcome(("a", "b", "c"), x, outcomes, draws=50)
    assert few.predictors == ()
    assert few.note == f"{points} arms are too few for a rank correlation (8 are needed)."


def test_what_cannot_be_told_is_said() -> None:
    x, outcomes = data(2, points=8, axes=6)
    few = correlate_with_outcome(tuple("abcdef"), x, outcomes, draws=50)
    assert "too few for a joint fit of 6 axes; it takes 9" in few.note
    assert all(one.joint is None and one.inflation is None for one in few.predictors)
    assert all(one.rank.value is not None for one in few.predictors)
    assert "does not vary" in correlate_with_outcome(("a",), np.ones((8, 1)), [[0.1], [0.2]] * 4).note
    x, outcomes = data(3)
    x[:, 1] = x[:, 0] * 2 + 1e-9 * x[:, 2]
    assert "rank these selections alike" in correlate_with_outcome(("a", "b", "c"), x, outcomes, draws=20).note
    for wrong in (
        lambda: correlate_with_outcome(("a",), x, outcomes),
        lambda: correlate_with_outcome(("a", "b", "c"), x, [*outcomes[:-1], [np.nan]]),
    ):
        with pytest.raises(UndersongError):
            wrong()
