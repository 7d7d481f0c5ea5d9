"""Variance of the jailbreak rate over runs: noise between training seeds, and variance components."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from undersong.research.statistics.variance import RunLabels, variance_components
from undersong.results.schema import RunResult
from undersong.results.schema_outcomes import RunNoiseRecord, VarianceComponentRecord, VarianceRecord
from undersong.statistics.runs import run_noise
from undersong.study.results.comparisons import harmful_prompts, tuned_runs
from undersong.study.results.records import AuditRecord, RunRecord
from undersong.types import Verdict


def run_noise_records(runs: Sequence[RunResult], plain: str, last_step: int) -> list[RunNoiseRecord]:
    """Compute one record a base, training modality, harmful set and prompt modality: JSR at the last step, undefended.

    Replicates are runs with the same ids in their selection and other seeds; two arms that trained on the same ids with
    the same seed are one training and count once.
    """
    tuned = tuned_runs(runs, last_step)
    cells: dict[tuple[str, str], list[RunResult]] = {}
    for run in tuned:
        cells.setdefault((run.model, str(run.train_modality)), []).append(run)
    return [
        _run_noise_record(cell_runs, name, modality, plain)
        for cell_runs in cells.values()
        for name, modality in harmful_prompts(tuned)
    ]


def _run_noise_record(runs: Sequence[RunResult], set_name: str, modality: str, plain: str) -> RunNoiseRecord:
    noise = run_noise(_jsr_replicates(runs, set_name, modality, plain))
    return RunNoiseRecord(
        model=runs[0].model,
        train_modality=str(runs[0].train_modality),
        prompt_set=set_name,
        modality=modality,
        groups=noise.groups,
        runs=noise.runs,
        df=noise.df,
        sd=noise.sd,
        low=noise.low,
        high=noise.high,
        repeatability_limit=noise.reach,
        note=noise.note or None,
    )


def _jsr_replicates(
    runs: Sequence[RunResult], set_name: str, modality: str, plain: str
) -> dict[str | None, list[float]]:
    """Ids hash -> JSR by seed."""
    jsr_by_selection: dict[str | None, dict[int | None, float]] = defaultdict(dict)
    for run in runs:
        rate = run.find_rate(set_name, modality, plain)
        if rate is not None:
            jsr_by_selection[run.selection_hash][run.seed] = rate.rate
    return {key: list(by_seed.values()) for key, by_seed in jsr_by_selection.items()}


VerdictsByArtifact = Mapping[str, Sequence[Verdict]]  # artifact hash -> verdicts


def variance_records(record: AuditRecord, verdicts: VerdictsByArtifact, last_step: int) -> list[VarianceRecord]:
    """Compute one record a training modality, harmful set and prompt modality.

    The JSR is that at the last step, undefended, over all bases.
    Arms of a base that trained on the same ids with the same seed are one training, and count once, as the first.
    """
    tuned = [run for m in record.models for run in m.runs if run.arm.selection is not None and run.step == last_step]
    plain, records = record.study.undefended_system, []
    for train_modality in sorted({str(run.arm.modality) for run in tuned}):
        runs = _distinct_trainings(run for run in tuned if run.arm.modality == train_modality)
        prompt_sets = {
            (verdict.set, verdict.modality)
            for run in runs.values()
            for verdict in verdicts[run.verdicts.hash]
            if verdict.harmful
        }
        for prompt_set in sorted(prompt_sets):
            outcomes = {
                label: [v for v in verdicts[run.verdicts.hash] if (v.set, v.modality, v.system) == (*prompt_set, plain)]
                for label, run in runs.items()
            }
            records.append(_variance_record(outcomes, train_modality, *prompt_set))
    return records


def _distinct_trainings(runs: Iterable[RunRecord]) -> dict[RunLabels, RunRecord]:
    trainings: dict[tuple[Any, ...], tuple[RunLabels, RunRecord]] = {}
    for run in runs:
        arm = run.arm
        assert arm.selection is not None, "the base is not tuned"
        selection = (arm.axis, arm.kind, arm.fraction, arm.rule, arm.harm_set)
        base, ids = (arm.model, arm.base_seed), arm.selection.ids_hash
        trainings.setdefault((base, ids, arm.seed), (RunLabels(base, selection, ids, arm.seed), run))
    return dict(trainings.values())


def _variance_record(
    outcomes: Mapping[RunLabels, Sequence[Verdict]], train_modality: str, set_name: str, modality: str
) -> VarianceRecord:
    first_outcomes = next(iter(outcomes.values()))
    values = [[v.verdict == "jailbreak" for v in run_outcomes] for run_outcomes in outcomes.values()]
    variance = variance_components(list(outcomes), values, [v.cluster for v in first_outcomes])
    return VarianceRecord(
        train_modality=train_modality,
        prompt_set=set_name,
        modality=modality,
        n=len(first_outcomes),
        runs=variance.runs,
        components=[
            VarianceComponentRecord(
                name=part.name,
                groups=part.groups,
                df=part.df,
                sd=part.sd,
                low=part.low,
                high=part.high,
                share=part.share,
                note=part.note or None,
            )
            for part in variance.parts
        ],
        sd=variance.sd,
        seed_sd_from_prompts=variance.seed_by_prompts,
        note=variance.note or None,
    )
