"""Bounds of a corrected rise err in no more than 5 % of audits, and need both the labels and the prompts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from simulated_runs import no_more_than

from undersong.statistics import corrected_rise
from undersong.statistics.corrected_rise import CorrectedRise, estimate_corrected_rise
from undersong.statistics.judge_correction import LabeledReplies
from undersong.statistics.rise_bounds import estimate_rise
from undersong.types import UndersongError

SIMULATIONS = 150


def judged(rng: np.random.Generator, truth: np.ndarray, labels: int, errs: bool) -> LabeledReplies:
    """A judge that errs or not, and labels of a few replies of either verdict."""
    counted = rng.random(len(truth)) < np.where(truth, 0.75, 0.1) if errs else truth
    known: list[bool | None] = [None] * len(truth)
    for verdict in (True, False):
        for row in rng.permutation(np.flatnonzero(counted == verdict))[:labels]:
            known[row] = bool(truth[row])
    return LabeledReplies(tuple(counted.tolist()), tuple(known), tuple(range(len(truth))))


def audits(n: int, base: float, rise: float, labels: int, errs: bool) -> Iterator[CorrectedRise]:
    rng = np.random.default_rng(3)
    for _ in range(SIMULATIONS):
        before = rng.random(n) < base
        after = before | (rng.random(n) < rise / (1 - base))
        yield estimate_corrected_rise(judged(rng, before, labels, errs), judged(rng, after, labels, errs))


@pytest.mark.parametrize(
    ("n", "base", "rise", "labels", "errs"),
    [(100, 0.1, 0.02, 15, True), (100, 0.3, 0.0, 20, True), (80, 0.0, 0.03, 80, False), (60, 0.05, 0.1, 10, True)],
)
def test_the_bounds_err_no_more_often_than_they_say(n: int, base: float, rise: float, labels: int, errs: bool) -> None:
    found = list(audits(n, base, rise, labels, errs))
    assert no_more_than(sum(one.upper_bound(0.95) < rise for one in found), SIMULATIONS)
    assert no_more_than(sum(one.lower_bound(0.95) > rise for one in found), SIMULATIONS)


def test_the_labels_cannot_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrected_rise, "label_margins", lambda *arguments: (0.0, 0.0))
    wrong = sum(not one.lower_bound(0.95) <= 0.02 <= one.upper_bound(0.95) for one in audits(100, 0.1, 0.02, 6, True))
    assert not no_more_than(wrong, SIMULATIONS, 0.1)


def test_with_a_perfect_judge_and_all_labels_the_prompts_are_those_of_a_plain_rise() -> None:
    before, after = [False] * 60, [True] * 9 + [False] * 51
    rise = estimate_corrected_rise(*(LabeledReplies(tuple(t), tuple(t), tuple(range(60))) for t in (before, after)))
    plain = estimate_rise(before, after, range(60))
    assert rise.prompts.upper_bound(0.95) == pytest.approx(plain.upper_bound(0.95))
    assert rise.prompts.lower_bound(0.95) == pytest.approx(plain.lower_bound(0.95))
    assert rise.rates == (0.0, pytest.approx(0.15))
    assert rise.upper_bound(0.95) > plain.upper_bound(0.95)
    assert rise.lower_bound(0.95) < plain.lower_bound(0.95)
    # labels without end leave the prompts alone
    assert rise.upper_bound(0.95, 1e9) == pytest.approx(plain.upper_bound(0.95), abs=1e-4)


def test_replies_that_are_not_paired_are_an_error() -> None:
    one = LabeledReplies((0, 0), (True, True), (0, 1))
    with pytest.raises(UndersongError, match="same prompts in the same order"):
        estimate_corrected_rise(one, LabeledReplies((0, 0), (True, True), (0, 2)))
