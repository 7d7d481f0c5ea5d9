"""Tests over runs of the change of the late refusal gap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np

from undersong.evaluation.rates import Metric
from undersong.research.mechanism.directions import early_and_late_thirds
from undersong.research.mechanism.probe_scores import SIGNIFICANCE_LEVEL
from undersong.results.schema import RunResult
from undersong.results.schema_mechanism import (
    LateGapChangeByModality,
    LateGapComparison,
    LateSuppression,
    ModalityAsymmetry,
)
from undersong.results.schema_outcomes import ProximityVsJsrRecord
from undersong.stages.training import StudyArm
from undersong.statistics.regression import correlate_with_outcome
from undersong.statistics.runs import RunMean, mean_runs, paired_runs
from undersong.study.results.comparisons import adjust_p_values, harm_metric, tuned_runs
from undersong.study.results.proximity_vs_jsr import regression_record

RunId = tuple[int, int, int]  # base, draw, seed
PROMPT_MODALITIES = ("audio", "text")


@dataclass(frozen=True)
class GapChange:
    """One run's, probed in one modality."""

    arm: StudyArm
    prompt_modality: str
    late: float
    late_minus_early: float | None = None  # None: the decoder is too shallow, or a layer has no direction


@dataclass(frozen=True)
class GapTests:
    """Tests of the changes of the late gap at the last step, within each base."""

    changes: Sequence[GapChange]
    runs: Sequence[RunResult]
    harm_set: str  # its JSR is compared with the changes
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

    def late_suppression(self, n_layers: int) -> list[LateSuppression]:
        """Test whether late layers lose more of the gap than early ones, corrected by Holm together.

        Args:
            n_layers: Layers of the decoder.
        """
        tested = [
            (row, late)
            for changes in self.changes_by_model.values()
            for row, late in _late_suppression(changes, n_layers)
        ]
        corrected = adjust_p_values([row for row, _ in tested])
        return [
            row.model_copy(update={"outcome": _suppression_outcome(row, late)})
            for row, (_, late) in zip(corrected, tested, strict=True)
        ]

    def asymmetries(self) -> list[ModalityAsymmetry]:
        """Compare training on audio with training on text in the late gap and in the JSR."""
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


def _late_suppression(changes: Sequence[GapChange], n_layers: int) -> Iterator[tuple[LateSuppression, RunMean]]:
    """Untested contrast of each kind, training modality and prompt modality, and the mean change of its late gap."""
    shallow = early_and_late_thirds(n_layers) is None
    for kind, train_modality, prompt_modality in product(
        dict.fromkeys(change.arm.kind for change in changes), PROMPT_MODALITIES, PROMPT_MODALITIES
    ):
        cell = [
            change
            for change in changes
            if (change.arm.kind, change.arm.modality, change.prompt_modality) == (kind, train_modality, prompt_modality)
        ]
        if not cell:
            continue
        late = mean_runs(_mean_changes(cell))
        contrasts = mean_by_run(
            (change.arm, change.late_minus_early) for change in cell if change.late_minus_early is not None
        )
        record = LateSuppression(
            model=changes[0].arm.model,
            kind=kind,
            train_modality=train_modality,
            modality=prompt_modality,
            n=len(contrasts),
            outcome="too shallow" if shallow else "undecided",
        )
        if contrasts:
            test = paired_runs(dict.fromkeys(contrasts, 0.0), contrasts)
            record = record.model_copy(
                update={
                    "late_minus_early": test.difference,
                    "low": test.low,
                    "high": test.high,
                    "p": test.p,
                    "note": test.note or None,
                }
            )
        yield record, late


def _suppression_outcome(row: LateSuppression, late: RunMean) -> str:
    """Word for a corrected contrast; suppression needs a late gap that falls."""
    falls = late.high is not None and late.high < 0
    if row.outcome == "too shallow" or row.p_adjusted is None or row.p_adjusted > SIGNIFICANCE_LEVEL or not falls:
        return row.outcome
    assert row.late_minus_early is not None
    return "late" if row.late_minus_early < 0 else "early"


def _modality_asymmetry(
    changes: Sequence[GapChange], jsr: Mapping[tuple[Any, ...], float], metric: Metric
) -> Iterator[ModalityAsymmetry]:
    """Training on audio minus training on text on the same samples, in the late gap and in the JSR.

    Opposite signs agree: the modality that reduces the gap more is the one that raises the JSR more.
    """
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
    """Return True if both have opposite signs; None if an interval contains 0 or is missing."""
    signs = [_interval_sign(*ends) for ends in (gap_interval, jsr_interval)]
    return None if 0 in signs else signs[0] == -signs[1]


def _interval_sign(low: float | None, high: float | None) -> int:
    if low is None or high is None or low <= 0 <= high:
        return 0
    return 1 if low > 0 else -1


def _gap_change_vs_jsr(
    changes: Sequence[GapChange], jsr: Mapping[tuple[Any, ...], float], harm_set: str
) -> Iterator[ProximityVsJsrRecord]:
    """Correlate the late gap change with the JSR over arms, for prompts and probes in the same modality."""
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
