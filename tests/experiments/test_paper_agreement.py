"""The rule by which a number agrees with a claim: a table of made numbers and the words for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.paper.agreement import (
    ABOVE,
    ABSENT,
    AGAINST_IN_PART,
    AGREES,
    BELOW,
    CONTRADICTS,
    DIFFERS,
    IN_PART,
    LEANS,
    LEANS_AGAINST,
    LEANS_FOR,
    MIXED,
    NOTHING,
    UNKNOWN,
    Estimate,
    Expected,
    corrected,
    opposite,
    together,
    verdict,
)
from experiments.paper.evidence import over_runs

NEAR_ZERO, WITHIN = Expected("below", 0.15), Expected("within", 0.1)


def found(
    value: float, low: float | None, high: float | None, adjusted: float | None, p: float | None = 0.01
) -> Estimate:
    return Estimate(value, low, high, p, 3, 3, "runs", 0.01, adjusted)


@pytest.mark.parametrize(
    ("expected", "estimate", "word"),
    [
        (ABOVE, found(0.3, 0.2, 0.4, 0.04), AGREES),
        (ABOVE, found(0.3, 0.2, 0.4, 0.05), AGREES),
        (ABOVE, found(0.3, 0.2, 0.4, 0.06), LEANS_FOR),
        (ABOVE, found(0.3, -0.1, 0.7, 1.0), UNKNOWN),
        (ABOVE, found(-0.3, -0.4, -0.2, 0.04), CONTRADICTS),
        (ABOVE, found(-0.3, -0.4, -0.2, 0.3), LEANS_AGAINST),
        (BELOW, found(-0.3, -0.4, -0.2, 0.04), AGREES),
        (BELOW, found(0.3, 0.2, 0.4, 0.04), CONTRADICTS),
        (NEAR_ZERO, found(0.05, 0.0, 0.1, 0.01), AGREES),
        (NEAR_ZERO, found(0.05, 0.0, 0.1, 0.2), LEANS_FOR),
        (NEAR_ZERO, found(0.05, 0.0, 0.2, 0.2), UNKNOWN),
        (NEAR_ZERO, found(0.4, 0.2, 0.6, 0.2), LEANS_AGAINST),
        (NEAR_ZERO, found(0.4, 0.3, 0.5, 0.01), CONTRADICTS),
        (WITHIN, found(0.02, -0.05, 0.09, 0.01), AGREES),
        (WITHIN, found(0.02, -0.05, 0.09, 0.2), LEANS_FOR),
        (WITHIN, found(0.02, -0.15, 0.19, 0.2), UNKNOWN),
        (WITHIN, found(0.0, -0.15, 0.05, 0.2), UNKNOWN),
        (WITHIN, found(-0.4, -0.5, -0.3, 0.2), LEANS_AGAINST),
        (WITHIN, found(-0.4, -0.5, -0.3, 0.02), CONTRADICTS),
        (WITHIN, found(0.4, 0.05, 0.75, 0.9), UNKNOWN),
        (NOTHING, found(0.3, 0.2, 0.4, 0.04), DIFFERS),
        (NOTHING, found(0.3, 0.2, 0.4, 0.4), LEANS),
        (NOTHING, found(0.3, -0.2, 0.8, 0.4), UNKNOWN),
        # an interval without a test decides nothing
        (ABOVE, found(0.9, 0.7, 1.0, None, None), LEANS_FOR),
        (BELOW, found(0.9, 0.7, 1.0, None, None), LEANS_AGAINST),
        (BELOW, found(0.0, -0.1, 0.1, None, None), UNKNOWN),
        (NEAR_ZERO, found(0.0, 0.0, 0.1, None, None), LEANS_FOR),
        (NEAR_ZERO, found(0.0, 0.0, 0.16, None, None), UNKNOWN),
        # one run: nothing is known of its noise
        (ABOVE, found(0.9, None, None, None, None), UNKNOWN),
        (ABOVE, None, ABSENT),
    ],
)
def test_words(expected: Expected, estimate: Estimate | None, word: str) -> None:
    assert verdict(expected, estimate) == word


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ([AGREES, AGREES, AGREES], AGREES),
        ([AGREES, UNKNOWN, LEANS_FOR], IN_PART),
        ([AGREES, ABSENT], IN_PART),
        ([AGREES, CONTRADICTS, UNKNOWN], MIXED),
        ([CONTRADICTS, CONTRADICTS], CONTRADICTS),
        ([CONTRADICTS, LEANS_FOR], AGAINST_IN_PART),
        ([LEANS_FOR, LEANS_FOR], UNKNOWN),
        ([DIFFERS, DIFFERS], DIFFERS),
        ([DIFFERS, UNKNOWN], "significant in part"),
        ([ABSENT, ABSENT], ABSENT),
    ],
)
def test_the_word_for_a_claim(words: list[str], word: str) -> None:
    assert together(words) == word


UP, DOWN = found(0.3, 0.2, 0.4, 0.01), found(-0.3, -0.4, -0.2, 0.01)
LEANING_UP, UNSURE = found(0.3, 0.1, 0.5, 0.5), found(-0.3, -0.7, 0.1, 1.0)


@pytest.mark.parametrize(
    ("estimates", "word"),
    [
        ([UP, DOWN, None], AGREES),
        ([UP, DOWN, UNSURE], AGREES),
        ([LEANING_UP, DOWN], LEANS_FOR),
        ([UP, UP, UP], UNKNOWN),  # that they do not differ cannot be shown by signs
        ([UP, UNSURE], UNKNOWN),
        ([UP, None, None], ABSENT),
    ],
)
def test_whether_a_sign_depends_on_the_model(estimates: list[Estimate | None], word: str) -> None:
    assert opposite(estimates) == word


def test_correction_is_over_what_was_tested_alone() -> None:
    estimates = [found(0.3, 0.2, 0.4, None, 0.01), None, found(0.3, 0.2, 0.4, None, None), found(0.1, 0, 1, None, 0.04)]
    adjusted = [one and one.p_adjusted for one in corrected(estimates)]
    assert adjusted == [pytest.approx(0.02), None, None, pytest.approx(0.04)]


NUMBERS = st.lists(st.integers(-50, 50), min_size=2, max_size=6, unique=True)


@given(NUMBERS, st.sampled_from([ABOVE, BELOW, NEAR_ZERO, WITHIN, NOTHING]))
def test_the_test_is_scipys_against_the_edge(hundredths: list[int], expected: Expected) -> None:
    values = np.array(hundredths) / 100
    keys = [(0, seed, seed) for seed in range(len(values))]
    one = over_runs(dict.fromkeys(keys, 0.0), dict(zip(keys, values.tolist())), expected, (-1.0, 1.0))
    edge = expected.edge if expected.side != "within" or values.mean() >= 0 else -expected.edge
    whole = stats.ttest_1samp(values, edge)
    assert one.p == pytest.approx(whole.pvalue, rel=1e-6)
    assert one.sd == pytest.approx(values.std(ddof=1))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (one.low, one.high) == pytest.approx((max(-1, low), min(1, high)))


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 1), st.sampled_from([ABOVE, BELOW, NEAR_ZERO, WITHIN]))
def test_nothing_agrees_or_contradicts_uncorrected(value: float, half: float, p: float, expected: Expected) -> None:
    word = verdict(expected, found(value, value - half, value + half, p))
    assert (word in (AGREES, CONTRADICTS)) == (p <= 0.05)
    assert (word in (AGREES, LEANS_FOR)) <= expected.holds(value)
    assert not (word in (CONTRADICTS, LEANS_AGAINST) and expected.holds(value))
