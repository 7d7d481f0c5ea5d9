"""Shares below quantiles against loops and scipy's rank test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import trapezoid
from scipy.stats import mannwhitneyu

from undersong.statistics.auc import probability_below, quantile_shares, rank_positions, value_shares
from undersong.types import UndersongError

few = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5])
numbers = st.lists(st.one_of(few, st.floats(0, 2)), min_size=1, max_size=25).map(np.array)


def both(mine: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scale = rank_positions([mine, reference])
    return scale.values, *(value_shares(scale, i, np.ones(len(s))) for i, s in enumerate((mine, reference)))


@given(numbers, numbers)
def test_chance_is_mann_whitneys(mine, reference) -> None:
    _, a, b = both(mine, reference)
    u = mannwhitneyu(reference, mine).statistic  # pairs in which the reference is above
    assert probability_below(a, b) == pytest.approx(u / (len(mine) * len(reference)))
    assert probability_below(a, b) + probability_below(b, a) == pytest.approx(1)
    assert probability_below(b, b) == pytest.approx(0.5)


@given(numbers, numbers, st.floats(0.01, 0.99))
def test_share_and_mass_below_a_quantile(mine, reference, q: float) -> None:
    values, a, b = both(mine, reference)
    found = quantile_shares(values, a, b, np.array([q]))
    at = np.sort(reference)[min(len(reference) - 1, int(np.ceil(q * len(reference) - 1e-9)) - 1)]
    assert found.thresholds == [at]
    under, up_to = (mine < at).mean(), (mine <= at).mean()
    assert under - 1e-9 <= found.share[0] <= up_to + 1e-9
    assert found.mass[0] == pytest.approx(np.maximum(0, at - mine).mean(), abs=1e-9)
    assert quantile_shares(values, b, b, np.array([q])).share == pytest.approx([q])  # of itself: q, whatever ties


@given(numbers, numbers)
def test_the_area_under_the_curve_is_the_chance(mine, reference) -> None:
    values, a, b = both(mine, reference)
    ends = np.cumsum(b[b > 0])
    q = np.unique(np.clip(np.concatenate([ends - 1e-9, ends + 1e-9, [0.0]]), 0, 1))
    assert trapezoid(quantile_shares(values, a, b, q).share, q) == pytest.approx(probability_below(a, b), abs=1e-6)


@given(numbers, st.data())
def test_weights_write_out_copies(mine, data) -> None:
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(mine), max_size=len(mine))))
    if weights.sum() == 0:
        return
    scale, long = rank_positions([mine]), rank_positions([np.repeat(mine, weights)])
    found = value_shares(scale, 0, weights)
    assert found[found > 0] == pytest.approx(value_shares(long, 0, np.ones(weights.sum())))


@pytest.mark.parametrize("bad", [[], [np.nan], [1.0, np.inf]])
def test_refuses(bad: list) -> None:
    with pytest.raises(UndersongError):
        rank_positions([np.array([1.0]), np.array(bad)])
