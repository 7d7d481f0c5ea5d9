"""Run noise: the definition, its coverage by simulation, and what cannot be told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from undersong.statistics.runs import run_noise
from undersong.types import UndersongError

shares = st.floats(0, 1)


@given(st.lists(st.lists(shares, min_size=1, max_size=5), min_size=1, max_size=5), st.floats(-3, 3))
def test_it_is_the_pooled_deviation_and_knows_no_level(groups: list[list[float]], shift: float) -> None:
    found = run_noise(dict(enumerate(groups)))
    replicated = [group for group in groups if len(group) > 1]
    assert found.groups == len(replicated)
    assert found.df == sum(len(group) - 1 for group in replicated)
    if not replicated:
        assert found.sd is None
        assert "no group has two" in found.note.lower()
        return
    squares = sum((len(group) - 1) * np.var(group, ddof=1) for group in replicated)
    assert found.sd == pytest.approx(np.sqrt(squares / found.df), abs=1e-12)
    moved = run_noise({i: [value + shift * i for value in group] for i, group in enumerate(groups)})
    assert moved.sd == pytest.approx(found.sd, abs=1e-9)
    if found.low is not None:
        assert found.low <= found.sd <= found.high


def test_the_interval_covers_and_the_reach_reaches() -> None:
    """3,000 studies of 6 groups of 3 runs with a noise of .08."""
    rng, sd, inside, within = np.random.default_rng(0), 0.08, 0, 0
    for _ in range(3000):
        values = rng.normal(rng.uniform(0, 1, (6, 1)), sd, (6, 3))
        found = run_noise(dict(enumerate(values.tolist())))
        inside += found.low <= sd <= found.high
        within += abs(rng.normal(0, sd) - rng.normal(0, sd)) <= stats.norm.ppf(0.975) * np.sqrt(2) * sd
    assert stats.binomtest(inside, 3000, 0.95).pvalue > 0.01
    assert stats.binomtest(within, 3000, 0.95).pvalue > 0.01


def test_what_cannot_be_told() -> None:
    assert run_noise({}).sd is None
    equal = run_noise({"a": [0.25, 0.25], "b": [0.5, 0.5, 0.5]})
    assert (equal.sd, equal.low, equal.df) == (0.0, None, 3)
    assert "agree exactly" in equal.note
    with pytest.raises(UndersongError, match="not a number"):
        run_noise({"a": [0.1, float("nan")]})
