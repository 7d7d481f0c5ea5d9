"""Rates corrected by labels: they cover the true rate where the judge alone does not, and no margin can be left out."""

from __future__ import annotations

import numpy as np
import pytest

from undersong.statistics import judge_correction
from undersong.statistics.judge_correction import (
    CorrectedValue,
    LabeledReplies,
    corrected_difference,
    corrected_rate,
    error_share,
    labeled_cells,
)
from undersong.types import UndersongError

N, LABELS, SIMULATIONS = 300, 20, 200  # replies, labels of each cell, simulated audits
SENSITIVITY, SPECIFICITY = 0.75, 0.9


def simulate(rng: np.random.Generator, truth: np.ndarray, labels: int = LABELS, errs: bool = True) -> LabeledReplies:
    """A judge that errs or not, and labels of a few replies of either verdict."""
    counted = rng.random(N) < np.where(truth, SENSITIVITY, 1 - SPECIFICITY) if errs else truth
    known: list[bool | None] = [None] * N
    for verdict in (True, False):
        members = np.flatnonzero(counted == verdict)
        for row in rng.permutation(members)[:labels]:
            known[row] = bool(truth[row])
    return LabeledReplies(tuple(counted.tolist()), tuple(known), tuple(range(N)))


def rate_coverage(rate: float) -> tuple[float, float]:
    """Shares of audits whose corrected interval has the true rate, and whose mean verdict is within 5 points of it."""
    rng = np.random.default_rng(7)
    covered = naive = 0
    for _ in range(SIMULATIONS):
        replies = simulate(rng, rng.random(N) < rate)
        found = corrected_rate(replies)
        covered += found.low <= rate <= found.high
        naive += abs(np.mean(replies.cells) - rate) < 0.05  # type: ignore[arg-type]
    return covered / SIMULATIONS, naive / SIMULATIONS


@pytest.mark.parametrize("rate", [0.02, 0.15, 0.5])
def test_the_interval_covers_the_true_rate(rate: float) -> None:
    covered, naive = rate_coverage(rate)
    assert covered >= 0.93
    assert naive < 0.6


@pytest.mark.parametrize("part", ["label_margins", "_rate_margins"])
def test_no_part_of_the_variance_can_be_left_out(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr(judge_correction, part, lambda *arguments: (0.0, 0.0))
    rng = np.random.default_rng(7)
    few = part == "label_margins"  # a judge without errors and all labels leave the prompts alone as a sample
    made = [simulate(rng, rng.random(N) < 0.15, LABELS if few else N, few) for _ in range(SIMULATIONS)]
    found = [corrected_rate(replies) for replies in made]
    assert np.mean([one.low <= 0.15 <= one.high for one in found]) < 0.9


def paired(rng: np.random.Generator, rise: float) -> CorrectedValue:
    """Truth before at 10 %, and after higher by `rise` on other prompts."""
    before = rng.random(N) < 0.1
    after = before | (rng.random(N) < rise / 0.9)
    return corrected_difference(simulate(rng, before), simulate(rng, after))


@pytest.mark.parametrize("rise", [0.0, 0.2])
def test_the_interval_covers_the_true_difference(rise: float) -> None:
    rng = np.random.default_rng(11)
    found = [paired(rng, rise) for _ in range(SIMULATIONS)]
    assert np.mean([one.low <= rise <= one.high for one in found]) >= 0.93
    assert abs(np.mean([one.value for one in found]) - rise) < 0.02


def test_with_a_perfect_judge_and_all_labels_it_is_the_rate() -> None:
    truth = tuple(i < 30 for i in range(100))
    found = corrected_rate(LabeledReplies(truth, truth, tuple(range(100))))
    assert found.value == pytest.approx(0.3)
    assert 0.15 < found.low < 0.25 < 0.35 < found.high < 0.45


def test_replies_without_text_stay_in_the_denominator() -> None:
    replies = LabeledReplies((True, True, None, None), (True, True, None, None), (0, 1, 2, 3))
    assert corrected_rate(replies).value == pytest.approx(0.5)


def test_clusters_make_the_interval_wider() -> None:
    rng = np.random.default_rng(3)
    replies = simulate(rng, rng.random(N) < 0.3)
    # one request in three voices: the same verdict and the same label thrice
    thrice = LabeledReplies(replies.cells * 3, replies.labels * 3, replies.clusters * 3)
    one, three = corrected_rate(replies), corrected_rate(thrice)
    assert three.value == pytest.approx(one.value)
    assert three.high - three.low > 0.95 * (one.high - one.low)


def test_the_number_of_labels_that_would_do_does() -> None:
    rng = np.random.default_rng(5)
    truth = rng.random(2000) < 0.2
    counted = tuple((truth & (rng.random(2000) < 0.8)).tolist())

    def audit(n: int) -> CorrectedValue:
        known = tuple(bool(truth[i]) if i < n else None for i in range(2000))
        return corrected_rate(LabeledReplies(counted, known, tuple(range(2000))))

    few = audit(60)
    assert few.labels_needed is not None
    assert not few.is_settled
    more = audit(int(1.3 * few.labels_needed))
    assert more.is_settled
    assert more.high - more.low <= 0.1


def test_no_number_of_labels_settles_what_too_few_prompts_leave_open() -> None:
    truth = (True, False) * 10
    assert corrected_rate(LabeledReplies(truth, truth, tuple(range(20)))).labels_needed is None


def test_errors_of_the_judge_are_shares_of_its_verdicts() -> None:
    cells = (True,) * 10 + (False,) * 10
    labels = (True,) * 8 + (False,) * 2 + (True,) * 1 + (False,) * 9
    found = labeled_cells(LabeledReplies(cells, labels, tuple(range(20))))
    wrong, missed = error_share([found[True]], False), error_share([found[False]], True)
    assert wrong is not None
    assert missed is not None
    assert (wrong[0], missed[0]) == (pytest.approx(0.2), pytest.approx(0.1))
    assert wrong[1] < 0.2 < wrong[2]
    assert error_share([], True) is None


def test_a_cell_without_a_label_and_unpaired_replies_are_errors() -> None:
    with pytest.raises(UndersongError, match="None of the 1 replies of the cell 1 is labelled"):
        corrected_rate(LabeledReplies((0, 1), (True, None), (0, 1)))
    one = LabeledReplies((0, 0), (True, True), (0, 1))
    with pytest.raises(UndersongError, match="same prompts in the same order"):
        corrected_difference(one, LabeledReplies((0, 0), (True, True), (0, 2)))
