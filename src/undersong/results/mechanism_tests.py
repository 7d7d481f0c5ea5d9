"""Tests over runs of the change of the late refusal gap and of harm recognition by probes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import isnan
from statistics import fmean
from typing import Any, Literal

import numpy as np

from undersong.evaluation.rates import Metric
from undersong.mechanism.probe_scores import (
    SIGNIFICANCE_LEVEL,
    PointScores,
    ProbeDecisions,
    classify_recognition,
    late_difference,
    recognition_sentence,
)
from undersong.mechanism.probes import PROBE_SEED
from undersong.results.comparisons import adjust_p_values, harm_metric, tuned_runs
from undersong.results.proximity_vs_jsr import regression_record
from undersong.results.schema import RunResult
from undersong.results.schema_mechanism import (
    HarmRecognition,
    LateGapChangeByModality,
    LateGapComparison,
    ModalityAsymmetry,
)
from undersong.results.schema_outcomes import ProximityVsJsrRecord
from undersong.stages.training import StudyArm
from undersong.statistics import RunMean, correlate_with_outcome, mean_runs, paired_runs
from undersong.study.defaults import EQUIVALENCE_MARGIN

RunId = tuple[int, int, int]  # base, draw, seed
PROMPT_MODALITIES = ("audio", "text")


@dataclass(frozen=True)
class GapChange:
    """One run's, probed in one modality."""

    arm: StudyArm
    prompt_modality: str
    late: float


@dataclass(frozen=True)
class GapTests:
    """Tests of the changes of the late gap at the last step, within each base."""

    changes: Sequence[GapChange]
    runs: Sequence[RunResult]
    harm_set: str  # whose JSR is set beside the changes
    system: str  # name of the undefended system prompt
    last_step: int
    changes_by_model: dict[str, list[GapChange]] = field(init=False)
    jsr: dict[tuple[Any, ...], float] = field(init=False)  # by run and modality of the prompts

    def __post_init__(self) -> None:
        by_model: dict[str, list[GapChange]] = {}
        for change in self.changes:
            by_model.setdefault(change.arm.model, []).append(change)
        object.__setattr__(self, "changes_by_model", by_model)
        object.__setattr__(self, "jsr", _jsr_by_evaluation(self.runs, self.harm_set, self.system, self.last_step))

    def comparisons(self) -> list[LateGapComparison]:
        """Compare closest with distant data, corrected by Holm together."""
        return adjust_p_values([row for changes in self.changes_by_model.values() for row in _comparisons(changes)])

    def changes_by_modality(self) -> list[LateGapChangeByModality]:
        """Average the changes by training and prompt modality."""
        return [row for changes in self.changes_by_model.values() for row in _changes_by_modality(changes)]

    def asymmetries(self) -> list[ModalityAsymmetry]:
        """Compare training on audio with training on text: the late gap beside the JSR."""
        metric = harm_metric(self.runs)
        return [
            row for changes in self.changes_by_model.values() for row in _modality_asymmetry(changes, self.jsr, metric)
        ]

    def gap_vs_jsr(self) -> list[ProximityVsJsrRecord]:
        """Correlate the change of the late gap with the JSR, over arms."""
        return [
            row
            for changes in self.changes_by_model.values()
            for row in _gap_change_vs_jsr(changes, self.jsr, self.harm_set)
        ]


def _comparisons(changes: Sequence[GapChange]) -> Iterator[LateGapComparison]:
    """Closest minus distant data; negative: the gap of closest data fell further."""
    for cell in dict.fromkeys(
        (change.arm.axis, change.arm.fraction, change.arm.modality, change.prompt_modality) for change in changes
    ):
        changes_by_kind = [_changes_by_run(changes, cell, kind) for kind in ("distant", "closest")]
        if all(changes_by_kind):
            difference = paired_runs(changes_by_kind[0], changes_by_kind[1])
            axis, fraction, train_modality, prompt_modality = cell
            yield LateGapComparison(
                question=f"Does closest data suppress the late gap more than distant data ({axis} at {fraction:g}, "
                f"trained on {train_modality})?",
                model=changes[0].arm.model,
                axis=str(axis),
                fraction=float(fraction or 0.0),
                train_modality=str(train_modality),
                modality=prompt_modality,
                n=difference.n,
                difference=difference.difference,
                low=difference.low,
                high=difference.high,
                p=difference.p,
                method=difference.method,
                note=difference.note or None,
            )


def _changes_by_run(changes: Sequence[GapChange], cell: tuple[Any, ...], kind: str) -> dict[RunId, float]:
    return {
        change.arm.run_key: change.late
        for change in changes
        if (change.arm.axis, change.arm.fraction, change.arm.modality, change.prompt_modality) == cell
        and (change.arm.kind, change.arm.rule) == (kind, "")
    }


def _changes_by_modality(changes: Sequence[GapChange]) -> Iterator[LateGapChangeByModality]:
    """Trained on {audio, text} x probed with {audio, text}, for each kind: mean change, over axes and fractions."""
    for kind, train_modality, prompt_modality in product(
        dict.fromkeys(change.arm.kind for change in changes), PROMPT_MODALITIES, PROMPT_MODALITIES
    ):
        mean_changes = _mean_changes(
            [
                change
                for change in changes
                if (change.arm.kind, change.arm.modality, change.prompt_modality)
                == (kind, train_modality, prompt_modality)
            ]
        )
        if mean_changes:
            mean = mean_runs(mean_changes)
            yield LateGapChangeByModality(
                model=changes[0].arm.model,
                kind=kind,
                train_modality=train_modality,
                modality=prompt_modality,
                n=len(mean_changes),
                change=mean.mean,
                low=mean.low,
                high=mean.high,
                note=mean.note or None,
            )


def _modality_asymmetry(
    changes: Sequence[GapChange], jsr: Mapping[tuple[Any, ...], float], metric: Metric
) -> Iterator[ModalityAsymmetry]:
    """Trained on audio less trained on text, same samples: the late gap beside the JSR.  Opposite signs agree: the
    modality that suppresses the gap more is the one that breaks more."""
    for kind, prompt_modality in product(dict.fromkeys(change.arm.kind for change in changes), PROMPT_MODALITIES):
        kind_changes = [
            change for change in changes if (change.arm.kind, change.prompt_modality) == (kind, prompt_modality)
        ]
        text_changes, audio_changes = (
            [change for change in kind_changes if change.arm.modality == train_modality]
            for train_modality in ("text", "audio")
        )
        if not (text_changes and audio_changes) or any(_evaluation_key(c) not in jsr for c in kind_changes):
            continue
        gap_difference = paired_runs(_mean_changes(text_changes), _mean_changes(audio_changes))
        text_jsr, audio_jsr = (
            _mean_changes([replace(change, late=jsr[_evaluation_key(change)]) for change in modality_changes])
            for modality_changes in (text_changes, audio_changes)
        )
        jsr_difference = paired_runs(text_jsr, audio_jsr, limits=(-1.0, 1.0))
        yield ModalityAsymmetry(
            model=changes[0].arm.model,
            kind=kind,
            modality=prompt_modality,
            n=gap_difference.n,
            metric=metric,
            late_gap=gap_difference.difference,
            late_gap_low=gap_difference.low,
            late_gap_high=gap_difference.high,
            rate_change=jsr_difference.difference,
            rate_change_low=jsr_difference.low,
            rate_change_high=jsr_difference.high,
            opposite_signs=_has_opposite_signs(
                (gap_difference.low, gap_difference.high), (jsr_difference.low, jsr_difference.high)
            ),
        )


def _has_opposite_signs(
    gap_interval: tuple[float | None, float | None], jsr_interval: tuple[float | None, float | None]
) -> bool | None:
    """Whether the two are of opposite signs; None where an interval holds 0, or there is none."""
    signs = [_interval_sign(*ends) for ends in (gap_interval, jsr_interval)]
    return None if 0 in signs else signs[0] == -signs[1]


def _interval_sign(low: float | None, high: float | None) -> int:
    if low is None or high is None or low <= 0 <= high:
        return 0
    return 1 if low > 0 else -1


def _gap_change_vs_jsr(
    changes: Sequence[GapChange], jsr: Mapping[tuple[Any, ...], float], harm_set: str
) -> Iterator[ProximityVsJsrRecord]:
    """Over arms: how the late change goes along with the JSR, prompts asked and probed in the same modality."""
    for prompt_modality in PROMPT_MODALITIES:
        points: dict[tuple[str, str | None], list[GapChange]] = defaultdict(list)
        for change in changes:
            if change.prompt_modality == prompt_modality and _evaluation_key(change) in jsr:
                assert change.arm.selection is not None
                points[change.arm.selection.ids_hash, change.arm.modality].append(change)
        if len(points) > 1:
            gap_decreases = np.array([[-fmean(change.late for change in group)] for group in points.values()])
            regression = correlate_with_outcome(
                ("suppression",),
                gap_decreases,
                [[jsr[_evaluation_key(change)] for change in group] for group in points.values()],
            )
            yield regression_record(regression, changes[0].arm.model, prompt_modality, prompt_set=harm_set)


def mean_by_run(values: Iterable[tuple[StudyArm, float]]) -> dict[RunId, float]:
    """Mean over the arms of each (base, draw, seed)."""
    groups: dict[RunId, list[float]] = defaultdict(list)
    for arm, value in values:
        groups[arm.run_key].append(value)
    return {key: fmean(group) for key, group in groups.items()}


def _mean_changes(changes: Sequence[GapChange]) -> dict[RunId, float]:
    return mean_by_run((change.arm, change.late) for change in changes)


def _evaluation_key(change: GapChange) -> tuple[Any, ...]:
    return (change.arm.model, change.arm.name, change.arm.seed, change.arm.draw, change.prompt_modality)


def _jsr_by_evaluation(
    runs: Sequence[RunResult], harm_set: str, plain: str, last_step: int
) -> dict[tuple[Any, ...], float]:
    jsr_by_key = {}
    for run in tuned_runs(runs, last_step):
        for modality in PROMPT_MODALITIES:
            if (rate := run.find_rate(harm_set, modality, plain)) is not None:
                jsr_by_key[run.model, run.arm, run.seed, run.draw, modality] = rate.rate
    return jsr_by_key


DRAWS = 2000
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
    """Compute one record a base, kind, modality of training and of probing, at the last step.

    The refusals on `harm_set` go beside.
    Late probes must be above chance in the base and in every run for recognition to be `retained`.
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
    """By runs; where these agree exactly, if the answers of every run lie above the base's, both by their prompts."""
    if refusal_change is None or refusal_change.high is not None or len(group) < 2:
        return refusal_change is not None and refusal_change.high is not None and refusal_change.high < 0
    rates = [probed_run.run.find_rate(harm_set, probed_run.prompt_modality, plain) for probed_run in (base, *group)]
    ends = [
        (rate.low, rate.high) for rate in rates if rate is not None and rate.low is not None and rate.high is not None
    ]
    return refusal_change.mean < 0 and all(low > ends[0][1] for low, _ in ends[1:])


def _refusal_change(base: ProbedRun, group: Sequence[ProbedRun], harm_set: str, plain: str) -> RunMean | None:
    """Change of the refusal rate; None where that was not asked."""
    found = [probed_run.run.find_rate(harm_set, probed_run.prompt_modality, plain) for probed_run in (base, *group)]
    rates = [rate.refusal / rate.n for rate in found if rate is not None]
    if len(rates) < len(found):
        return None
    return mean_runs(
        mean_by_run((probed_run.arm, rate - rates[0]) for probed_run, rate in zip(group, rates[1:])), limits=(-1.0, 1.0)
    )
