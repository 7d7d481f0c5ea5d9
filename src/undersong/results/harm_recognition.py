"""Tests over runs of the change of harm recognition by probes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean
from typing import Literal

from undersong.mechanism.probe_changes import classify_recognition, recognition_sentence
from undersong.mechanism.probe_scores import SIGNIFICANCE_LEVEL, PointScores, ProbeDecisions, late_difference
from undersong.mechanism.probes import PROBE_SEED
from undersong.results.mechanism_tests import DRAWS, mean_by_run
from undersong.results.schema import RunResult
from undersong.results.schema_mechanism import HarmRecognition
from undersong.stages.training import StudyArm
from undersong.statistics import RunMean, mean_runs
from undersong.study.defaults import EQUIVALENCE_MARGIN

UNKNOWN_LOSS = "Nothing can be said of a loss"


@dataclass(frozen=True)
class ProbedRun:
    """The scores of probes of one model in one modality, with its run."""

    arm: StudyArm
    prompt_modality: str
    scores: PointScores
    run: RunResult
    decisions: ProbeDecisions


def harm_recognition_records(probed_runs: Sequence[ProbedRun], harm_set: str, plain: str) -> list[HarmRecognition]:
    """Compute one record per base, kind, training modality and probed modality, at the last step.

    Each record also holds the refusals on `harm_set`. Recognition is `retained` only if late probes are above chance in
    the base and in every run.
    """
    bases = {
        (probed_run.arm.model, probed_run.prompt_modality): probed_run
        for probed_run in probed_runs
        if probed_run.arm.kind == "base"
    }
    groups: dict[tuple[str, str, str, str | None], list[ProbedRun]] = {}
    for probed_run in probed_runs:
        if probed_run.arm.kind != "base":
            groups.setdefault(
                (probed_run.arm.model, probed_run.prompt_modality, probed_run.arm.kind, probed_run.arm.modality), []
            ).append(probed_run)
    return [row for key, group in groups.items() for row in _harm_recognition(group, bases[key[:2]], harm_set, plain)]


def _harm_recognition(
    group: Sequence[ProbedRun], base: ProbedRun, harm_set: str, plain: str
) -> Iterator[HarmRecognition]:
    if any(isnan(probed_run.scores.late_accuracy) for probed_run in (base, *group)):
        return  # no probe has varying states
    arm, score_before = group[0].arm, base.scores.late_accuracy
    change = mean_runs(
        mean_by_run((probed_run.arm, probed_run.scores.late_accuracy - score_before) for probed_run in group),
        limits=(-1.0, 1.0),
    )
    low, high = change.low, change.high
    interval_over: Literal["runs", "prompts"] = "runs"
    if low is None and len(group) > 1:
        low, high = _interval_over_prompts(base, group)
        interval_over = "prompts"
    refusal_change = _refusal_change(base, group, harm_set, plain)
    above_chance = (
        base.scores.late_p_value <= SIGNIFICANCE_LEVEL,
        all(probed_run.scores.late_p_value <= SIGNIFICANCE_LEVEL for probed_run in group),
    )
    outcome = classify_recognition(low, high, EQUIVALENCE_MARGIN, *above_chance)
    refuses_less = _refuses_less(refusal_change, base, group, harm_set, plain)
    yield HarmRecognition(
        model=arm.model,
        kind=arm.kind,
        train_modality=str(arm.modality),
        modality=base.prompt_modality,
        n=len(group),
        before=score_before,
        before_p=base.scores.late_p_value,
        after=fmean(probed_run.scores.late_accuracy for probed_run in group),
        after_p=max(probed_run.scores.late_p_value for probed_run in group),
        change=change.mean,
        low=low,
        high=high,
        interval_over=interval_over,
        equivalence_margin=EQUIVALENCE_MARGIN,
        refusal_rate_change=refusal_change.mean if refusal_change else None,
        refusal_rate_change_low=refusal_change.low if refusal_change else None,
        refusal_rate_change_high=refusal_change.high if refusal_change else None,
        outcome=outcome,
        dissociated=outcome == "retained" and refuses_less,
        finding=recognition_sentence(outcome, EQUIVALENCE_MARGIN, refuses_less)
        if low is not None
        else f"{UNKNOWN_LOSS}: {change.note}",
    )


def _interval_over_prompts(base: ProbedRun, group: Sequence[ProbedRun]) -> tuple[float | None, float | None]:
    changes = [late_difference(base.decisions, probed_run.decisions, DRAWS, PROBE_SEED) for probed_run in group]
    ends = [(change.low, change.high) for change in changes if change.low is not None and change.high is not None]
    if len(ends) < len(changes):
        return None, None
    return min(low for low, _ in ends), max(high for _, high in ends)


def _refuses_less(
    refusal_change: RunMean | None, base: ProbedRun, group: Sequence[ProbedRun], harm_set: str, plain: str
) -> bool:
    """Return True if refusals fell over runs; if all runs agree exactly, their intervals over prompts decide."""
    if refusal_change is None or refusal_change.high is not None or len(group) < 2:
        return refusal_change is not None and refusal_change.high is not None and refusal_change.high < 0
    rates = [probed_run.run.find_rate(harm_set, probed_run.prompt_modality, plain) for probed_run in (base, *group)]
    ends = [
        (rate.low, rate.high) for rate in rates if rate is not None and rate.low is not None and rate.high is not None
    ]
    return refusal_change.mean < 0 and all(low > ends[0][1] for low, _ in ends[1:])


def _refusal_change(base: ProbedRun, group: Sequence[ProbedRun], harm_set: str, plain: str) -> RunMean | None:
    """Return the change of the refusal rate; None if it was not measured."""
    found = [probed_run.run.find_rate(harm_set, probed_run.prompt_modality, plain) for probed_run in (base, *group)]
    rates = [rate.refusal / rate.n for rate in found if rate is not None]
    if len(rates) < len(found):
        return None
    return mean_runs(
        mean_by_run((probed_run.arm, rate - rates[0]) for probed_run, rate in zip(group, rates[1:])), limits=(-1.0, 1.0)
    )
