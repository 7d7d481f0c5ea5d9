"""Recognition beside refusal over the runs of a study: by hand, and no claim where there is nothing to see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from results_factory import make_rate, run_result

from undersong.research.mechanism.probe_scores import PointScores, ProbeDecisions, late_difference
from undersong.research.mechanism.probes import make_probe_decisions
from undersong.research.results import harm_recognition
from undersong.research.results.harm_recognition import ProbedRun, harm_recognition_records
from undersong.results.schema_mechanism import HarmRecognition
from undersong.stages.training import StudyArm
from undersong.statistics.bounded_mean import lower_mean_bound, upper_mean_bound

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
    own = [late_difference(decisions(0.94), decisions(late), 2000, 0) for late in AFTER]
    assert (entry.in_runs_low, entry.in_runs_high) == (min(one.low for one in own), max(one.high for one in own))
    assert entry.low == pytest.approx(-0.94 + lower_mean_bound([one.low + 0.94 for one in own]))
    assert entry.high == pytest.approx(-0.94 + upper_mean_bound([min(1.0, one.high + 0.94) for one in own]))
    assert entry.change == pytest.approx(np.mean(AFTER) - 0.94)
    refused = np.array(REFUSED) / 100
    assert entry.refusal_rate_change == pytest.approx(refused.mean() - 0.96)
    assert entry.refusal_rate_change_low == pytest.approx(lower_mean_bound(refused) - 0.96)
    assert entry.refusal_rate_change_high == pytest.approx(upper_mean_bound(refused) - 0.96)


def test_the_trained_models_and_the_way_of_training_are_two_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs leave it possible that most trainings lose the recognition; 40 runs that agree do not."""
    entry = found(after=(0.93, 0.95, 0.94))
    assert (entry.in_runs_outcome, entry.outcome, entry.dissociated, entry.n) == ("retained", "undecided", False, 3)
    assert entry.finding.startswith("In each of these 3 trained models, over prompts: Harm is still recognized")
    assert "it is refused less. Of this way of training: Whether harm is still recognized is open" in entry.finding
    monkeypatch.setattr(harm_recognition, "DRAWS", 100)
    base = known("base", 0.94, 96)
    many = [known("closest", 0.96, 20, i) for i in range(60)]
    (shown,) = harm_recognition_records([base, *many], "harm", "plain")
    assert (shown.outcome, shown.dissociated) == ("retained", True)


def test_what_cannot_be_claimed() -> None:
    chance = found(before=known("base", 0.55, 96, p=0.3))
    assert (chance.outcome, chance.in_runs_outcome, chance.dissociated) == ("absent", "absent", False)
    assert found(p=0.2).in_runs_outcome == "undecided"  # some run's probes are at chance
    gone = found(after=(0.55, 0.56, 0.54))
    assert (gone.in_runs_outcome, gone.outcome, gone.dissociated) == ("lost", "undecided", False)


def test_runs_that_agree_exactly_are_no_stronger_evidence_than_runs_that_nearly_do() -> None:
    alike, nearly = found(after=(0.95, 0.95, 0.95)), found(after=(0.95, 0.9375, 0.95))
    assert alike.interval_over == nearly.interval_over == "runs"
    assert (alike.outcome, nearly.outcome) == ("undecided", "undecided")
    (alone,) = harm_recognition_records([known("base", 0.94, 96), known("closest", 0.93, 20, 0)], "harm", "plain")
    assert (alone.outcome, alone.low, alone.dissociated) == ("undecided", None, False)
    assert alone.in_runs_outcome == "retained"
    assert alone.finding.startswith("In this trained model, over prompts: Harm is still recognized")
    assert alone.finding.endswith("Of this way of training nothing can be said: one run shows no run noise.")


def test_without_varying_states_nothing_is_told() -> None:
    nan = PointScores(np.full(2, np.nan), float("nan"), float("nan"))
    none = ProbedRun(StudyArm("m", 0), "audio", nan, {"sets": []}, decisions(0.9))
    assert harm_recognition_records([none, known("closest", 0.9, 20, 0)], "harm", "plain") == []
