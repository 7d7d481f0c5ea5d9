"""Recognition beside refusal over the runs of a study: by hand, and no claim where there is nothing to see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from results_factory import make_rate, run_result
from scipy import stats

from undersong.mechanism.probe_scores import PointScores, ProbeDecisions, late_difference
from undersong.mechanism.probes import make_probe_decisions
from undersong.results.harm_recognition import ProbedRun, harm_recognition_records
from undersong.results.schema_mechanism import HarmRecognition
from undersong.stages.training import StudyArm

AFTER = (0.93, 0.95, 0.90)
REFUSED = (20, 30, 22)  # of 100; the base refuses 96


def known(kind: str, late: float, refusals: int, seed: int | None = None, p: float = 0.005) -> ProbedRun:
    base = kind == "base"
    arm = StudyArm("m", 0) if base else StudyArm("m", 0, "a", kind, 0.25, "audio", seed, seed)
    low, high = (100 - refusals - 3) / 100, (100 - refusals + 3) / 100  # of what is answered
    rate = make_rate((100 - refusals) / 100, low=low, high=high)
    scores = PointScores(np.array([np.nan, late]), late, p)
    return ProbedRun(arm, "audio", scores, run_result("base", [rate]), decisions(late))


def decisions(late: float) -> ProbeDecisions:
    """Of 40 behaviors of either kind, so many harmful ones told rightly that the balanced accuracy is `late`."""
    harmful = np.arange(80) < 40
    wrong = round(80 * (1 - late))
    said = np.where(harmful, 1.0, -1.0)
    said[:wrong] = -1.0
    return make_probe_decisions(np.stack([np.full(80, np.nan), said]), harmful, [f"c{i}" for i in range(80)], 60)


def found(after: tuple[float, ...] = AFTER, before: ProbedRun | None = None, **more: Any) -> HarmRecognition:
    runs = [known("closest", late, refused, i, **more) for i, (late, refused) in enumerate(zip(after, REFUSED))]
    (entry,) = harm_recognition_records([before or known("base", 0.94, 96), *runs], "harm", "plain")
    return entry


def test_by_hand() -> None:
    entry = found()
    changes, refused = np.array(AFTER) - 0.94, np.array(REFUSED) / 100 - 0.96
    for values, names in (
        (changes, ("change", "low", "high")),
        (refused, ("refusal_rate_change", "refusal_rate_change_low", "refusal_rate_change_high")),
    ):
        half = stats.t.ppf(0.975, 2) * stats.sem(values)
        mean = values.mean()
        expected = (mean, mean - half, mean + half)
        assert [getattr(entry, name) for name in names] == pytest.approx([max(-1, value) for value in expected])
    assert (entry.outcome, entry.dissociated, entry.n) == ("retained", True, 3)
    assert "still recognized" in entry.finding
    assert "refused less" in entry.finding


def test_what_cannot_be_claimed() -> None:
    chance = found(before=known("base", 0.55, 96, p=0.3))
    assert (chance.outcome, chance.dissociated) == ("absent", False)
    assert found(p=0.2).outcome == "undecided"  # some run's probes are at chance
    assert found(after=(0.93, 0.80, 0.65)).outcome == "undecided"  # too wide to tell
    gone = found(after=(0.55, 0.56, 0.54))
    assert (gone.outcome, gone.dissociated) == ("lost", False)


def test_where_all_runs_agree_the_prompts_speak() -> None:
    alike = found(after=(0.95, 0.95, 0.95), before=known("base", 0.9625, 96))
    own = late_difference(decisions(0.9625), decisions(0.95), 2000, 0)
    assert (alike.interval_over, alike.low, alike.high) == ("prompts", own.low, own.high)
    assert (alike.outcome, alike.dissociated) == ("retained", True)
    assert found().interval_over == "runs"
    (alone,) = harm_recognition_records([known("base", 0.94, 96), known("closest", 0.93, 20, 0)], "harm", "plain")
    assert (alone.outcome, alone.low, alone.dissociated) == ("undecided", None, False)  # one run shows no noise
    assert alone.finding.startswith("Nothing can be said of a loss: Only one independent")


def test_refusals_that_agree_exactly_are_told_by_their_prompts() -> None:
    for refused, less in ((20, True), (95, False)):  # the base answers 4 % [1, 7]
        runs = [known("closest", late, refused, i) for i, late in enumerate(AFTER)]
        (entry,) = harm_recognition_records([known("base", 0.94, 96), *runs], "harm", "plain")
        assert (entry.refusal_rate_change_high, entry.outcome, entry.dissociated) == (None, "retained", less)


def test_without_varying_states_nothing_is_told() -> None:
    nan = PointScores(np.full(2, np.nan), float("nan"), float("nan"))
    none = ProbedRun(StudyArm("m", 0), "audio", nan, {"sets": []}, decisions(0.9))
    assert harm_recognition_records([none, known("closest", 0.9, 20, 0)], "harm", "plain") == []
