"""Does a study's tuning take away the refusal and leave the knowledge of harm?  `mechanism.recognition`.

Late balanced accuracy of probes after less before, beside the change of the refusal rate; runs are the sample, within
one base.  Where all runs agree exactly, as near the ceiling, the widest of their own intervals over prompts stands.
Knows runs and their numbers; measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean
from typing import Any

from undersong.evaluation.rates import find_set_entry
from undersong.mechanism.probe_change import classify_recognition, recognition_sentence
from undersong.mechanism.probe_scores import SIGNIFICANCE_LEVEL, PointScores, ProbeDecisions, late_difference
from undersong.mechanism.recognition import EQUIVALENCE_MARGIN, PROBE_SEED
from undersong.pipeline.stages import StudyArm
from undersong.results.mechanism_tests import mean_by_run
from undersong.statistics import RunMean, mean_runs

RunEntry = Mapping[str, Any]
DRAWS = 2000
UNKNOWN_LOSS = "Nothing can be said of a loss"


@dataclass(frozen=True)
class ProbedRun:
    """What probes of one model tell, in one modality; `run` is its entry of results.json."""

    arm: StudyArm
    prompt_modality: str
    scores: PointScores
    run: RunEntry
    decisions: ProbeDecisions


def recognition_entries(probed_runs: Sequence[ProbedRun], harm_set: str, plain: str) -> list[dict[str, Any]]:
    """One entry a base, kind, modality of training and of probing, at the last step; `harm`: whose refusals go beside.

    Late probes must be above chance in the base and in every run for harm to be `kept`.
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
    return [
        entry for key, group in groups.items() for entry in _recognition_entry(group, bases[key[:2]], harm_set, plain)
    ]


def _recognition_entry(
    group: Sequence[ProbedRun], base: ProbedRun, harm_set: str, plain: str
) -> Iterator[dict[str, Any]]:
    if any(isnan(probed_run.scores.late_accuracy) for probed_run in (base, *group)):
        return  # no probe has varying states
    arm, score_before = group[0].arm, base.scores.late_accuracy
    change = mean_runs(
        mean_by_run((probed_run.arm, probed_run.scores.late_accuracy - score_before) for probed_run in group),
        limits=(-1.0, 1.0),
    )
    low, high, interval_over = change.low, change.high, "runs"
    if low is None and len(group) > 1:
        low, high = _interval_over_prompts(base, group)
        interval_over = "prompts"
    refusal_change = _refusal_change(base, group, harm_set, plain)
    above_chance = (
        base.scores.late_p_value <= SIGNIFICANCE_LEVEL,
        all(probed_run.scores.late_p_value <= SIGNIFICANCE_LEVEL for probed_run in group),
    )
    conclusion = classify_recognition(low, high, EQUIVALENCE_MARGIN, *above_chance)
    refuses_less = _refuses_less(refusal_change, base, group, harm_set, plain)
    yield {
        "model": arm.model, "kind": arm.kind, "train_modality": arm.modality, "modality": base.prompt_modality,
        "scope": "recipe", "n": len(group), "before": score_before, "before_p": base.scores.late_p_value,
        "after": fmean(probed_run.scores.late_accuracy for probed_run in group), "after_p": max(one.scores.late_p_value for one in group),
        "change": change.mean, "low": low, "high": high, "over": interval_over, "margin": EQUIVALENCE_MARGIN,
        "refusals": refusal_change.mean if refusal_change else None, "refusals_low": refusal_change.low if refusal_change else None,
        "refusals_high": refusal_change.high if refusal_change else None,
        "recognition": conclusion, "dissociated": conclusion == "kept" and refuses_less,
        "sentence": recognition_sentence(conclusion, EQUIVALENCE_MARGIN, refuses_less) if low is not None else f"{UNKNOWN_LOSS}: {change.note}",
    }  # fmt: skip


def _interval_over_prompts(base: ProbedRun, group: Sequence[ProbedRun]) -> tuple[float | None, float | None]:
    changes = [late_difference(base.decisions, probed_run.decisions, DRAWS, PROBE_SEED) for probed_run in group]
    ends = [(change.low, change.high) for change in changes if change.low is not None and change.high is not None]
    if len(ends) < len(changes):
        return None, None
    return min(low for low, _ in ends), max(high for _, high in ends)


def _refuses_less(
    refusal_change: RunMean | None, base: ProbedRun, group: Sequence[ProbedRun], harm_set: str, plain: str
) -> bool:
    """By runs; where these agree exactly, if the answers of every run lie above the base's, both by their prompts."""
    if refusal_change is None or refusal_change.high is not None or len(group) < 2:
        return refusal_change is not None and refusal_change.high is not None and refusal_change.high < 0
    entries = [
        find_set_entry(probed_run.run, harm_set, probed_run.prompt_modality, plain) for probed_run in (base, *group)
    ]
    ends = [(entry["low"], entry["high"]) for entry in entries if entry is not None]
    return refusal_change.mean < 0 and all(low > ends[0][1] for low, _ in ends[1:])


def _refusal_change(base: ProbedRun, group: Sequence[ProbedRun], harm_set: str, plain: str) -> RunMean | None:
    """Change of the refusal rate; None where that was not asked."""
    entries = [
        find_set_entry(probed_run.run, harm_set, probed_run.prompt_modality, plain) for probed_run in (base, *group)
    ]
    rates = [entry["refusal"] / entry["n"] for entry in entries if entry is not None]
    if len(rates) < len(entries):
        return None
    return mean_runs(
        mean_by_run((probed_run.arm, rate - rates[0]) for probed_run, rate in zip(group, rates[1:])), limits=(-1.0, 1.0)
    )
