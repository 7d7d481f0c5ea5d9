"""Recognition beside refusal over the runs of a study: by hand, and no claim where there is nothing to see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from undersong.mechanism.probe_scores import PointScores, ProbeDecisions, late_difference
from undersong.mechanism.probes import make_probe_decisions
from undersong.results.mechanism_tests import ProbedRun, recognition_entries
from undersong.stages.training import StudyArm

AFTER = (0.93, 0.95, 0.90)
REFUSED = (20, 30, 22)  # of 100; the base refuses 96


def known(kind: str, late: float, refusals: int, seed: int | None = None, p: float = 0.005) -> ProbedRun:
    base = kind == "base"
    arm = StudyArm("m", 0) if base else StudyArm("m", 0, "a", kind, 0.25, "audio", seed, seed)
    low, high = (100 - refusals - 3) / 100, (100 - refusals + 3) / 100  # of what is answered
    entry = {"set": "harm", "modality": "audio", "system": "plain", "refusal": refusals, "n": 100,
             "low": low, "high": high}  # fmt: skip
    return ProbedRun(
        arm, "audio", PointScores(np.array([np.nan, late]), late, p), {"prompt_sets": [entry]}, decisions(late)
    )


def decisions(late: float) -> ProbeDecisions:
    """Of 40 behaviors of either kind, so many harmful ones told rightly that the balanced accuracy is `late`."""
    harmful = np.arange(80) < 40
    wrong = round(80 * (1 - late))
    said = np.where(harmful, 1.0, -1.0)
    said[:wrong] = -1.0
    return make_probe_decisions(np.stack([np.full(80, np.nan), said]), harmful, [f"c{i}" for i in range(80)], 60)


def found(after: tuple[float, ...] = AFTER, before: ProbedRun | None = None, **more: Any) -> dict[str, Any]:
    runs = [known("closest", late, refused, i, **more) for i, (late, refused) in enumerate(zip(after, REFUSED))]
    (entry,) = recognition_entries([before or known("base", 0.94, 96), *runs], "harm", "plain")
    return entry


def test_by_hand() -> None:
    entry = found()
    changes, refused = np.array(AFTER) - 0.94, np.array(REFUSED) / 100 - 0.96
    for values, names in ((changes, ("change", "low", "high")),
                          (refused, ("refusals", "refusals_low", "refusals_high"))):  # fmt: skip
        half = stats.t.ppf(0.975, 2) * stats.sem(values)
        mean = values.mean()
        expected = (mean, mean - half, mean + half)
        assert [entry[name] for name in names] == pytest.approx([max(-1, value) for value in expected])
    assert (entry["recognition"], entry["dissociated"], entry["n"]) == ("kept", True, 3)
    assert "still recognised" in entry["sentence"]
    assert "refused less" in entry["sentence"]


def test_what_cannot_be_claimed() -> None:
    chance = found(before=known("base", 0.55, 96, p=0.3))
    assert (chance["recognition"], chance["dissociated"]) == ("absent", False)
    assert found(p=0.2)["recognition"] == "open"  # some run's probes are at chance
    assert found(after=(0.93, 0.80, 0.65))["recognition"] == "open"  # too wide to tell
    gone = found(after=(0.55, 0.56, 0.54))
    assert (gone["recognition"], gone["dissociated"]) == ("lost", False)


def test_where_all_runs_agree_the_prompts_speak() -> None:
    alike = found(after=(0.95, 0.95, 0.95), before=known("base", 0.9625, 96))
    own = late_difference(decisions(0.9625), decisions(0.95), 2000, 0)
    assert (alike["over"], alike["low"], alike["high"]) == ("prompts", own.low, own.high)
    assert (alike["recognition"], alike["dissociated"]) == ("kept", True)
    assert found()["over"] == "runs"
    (alone,) = recognition_entries([known("base", 0.94, 96), known("closest", 0.93, 20, 0)], "harm", "plain")
    assert (alone["recognition"], alone["low"], alone["dissociated"]) == ("open", None, False)  # one run shows no noise
    assert alone["sentence"].startswith("Nothing can be said of a loss: Only one independent")


def test_refusals_that_agree_exactly_are_told_by_their_prompts() -> None:
    for refused, less in ((20, True), (95, False)):  # the base answers 4 % [1, 7]
        runs = [known("closest", late, refused, i) for i, late in enumerate(AFTER)]
        (entry,) = recognition_entries([known("base", 0.94, 96), *runs], "harm", "plain")
        assert (entry["refusals_high"], entry["recognition"], entry["dissociated"]) == (None, "kept", less)


def test_without_varying_states_nothing_is_told() -> None:
    nan = PointScores(np.full(2, np.nan), float("nan"), float("nan"))
    none = ProbedRun(StudyArm("m", 0), "audio", nan, {"prompt_sets": []}, decisions(0.9))
    assert recognition_entries([none, known("closest", 0.9, 20, 0)], "harm", "plain") == []
