"""Drift by place: nothing where nothing moved, from the layer that the adapter sits in, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from planted import LOSES, Planted, prompts

from undersong.research.mechanism.drift import measure_drift
from undersong.statistics.cka import linear_cka
from undersong.types import UndersongError

ASKED = [*prompts(True, 12, "test"), *prompts(False, 12, "test")]
CLUSTERS = [prompt.sample.cluster for prompt in ASKED]


def test_it_begins_at_the_layer_that_moved() -> None:
    model = Planted()
    before = model.hidden_states(ASKED)
    with model.wearing():
        found = measure_drift(before, model.hidden_states(ASKED), CLUSTERS)
    assert found.input_difference == 0.0
    assert (found.relative[:LOSES] == 0).all()
    assert (found.relative[LOSES:] > 0.3).all()
    assert (found.low <= found.relative).all()
    assert (found.relative <= found.high).all()
    assert found.cka[:LOSES] == pytest.approx(1.0)


def test_by_hand() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(3, 6, 4)).astype(np.float32)
    after = before * np.array([1.0, 1.1, 1.0], np.float32)[:, None, None]
    after[2, :, 0] += 1
    found = measure_drift(before, after, list("aabbcc"))
    assert found.relative[1] == pytest.approx(0.1, rel=1e-5)
    assert found.relative[2] == pytest.approx(np.mean(1 / np.linalg.norm(before[2], axis=1)), rel=1e-5)
    assert found.cka[2] == pytest.approx(
        linear_cka(before[2], after[2]).debiased
    )  # a shift common to all leaves it at 1
    assert found.cka[1:] == pytest.approx(1.0)


def test_unrelated_states_have_no_similarity_though_prompts_are_fewer_than_dimensions() -> None:
    """The biased estimate calls them alike: 0.8 with 20 prompts and 80 dimensions."""
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 10, 20, 80))
    found = measure_drift(before, after, [str(i) for i in range(20)]).cka
    assert abs(found.mean()) < 0.05
    assert np.mean([linear_cka(a, b).value for a, b in zip(before, after)]) > 0.7


def test_states_that_do_not_vary_have_no_cka() -> None:
    before = np.ones((1, 3, 4), np.float32)
    assert np.isnan(measure_drift(before, before * 2, list("abc")).cka[0])
    assert np.isnan(measure_drift(before, before, ["a"] * 3).low[0])
    three = np.random.default_rng(0).normal(size=(1, 3, 4))  # too few prompts for an unbiased estimate
    assert np.isnan(measure_drift(three, three, list("abc")).cka[0])


def test_bad_input_has_a_sentence() -> None:
    before = np.ones((2, 3, 4), np.float32)
    with pytest.raises(UndersongError, match="cannot be compared"):
        measure_drift(before, before[:, :2], list("abc"))
    lost = before.copy()
    lost[1, 0, 0] = np.nan
    with pytest.raises(UndersongError, match="tuned model has states that are not finite"):
        measure_drift(before, lost, list("abc"))
