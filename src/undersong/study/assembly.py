"""Assembly of results.json from an audit's artifacts; every number with its n, interval and scope.

All rates can be recomputed from `verdicts.parquet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

from undersong.evaluation.rates import set_rates
from undersong.research.defenses.results import defended_run, defense_records, recommendation_records
from undersong.research.results.mechanism import mechanism_record
from undersong.research.results.variance import run_noise_records, variance_records
from undersong.results.comprehension import add_comprehension, comprehension_columns, read_run_comprehension
from undersong.results.schema import SCHEMA, ReplyExample, Results, RunResult, StudyRecord
from undersong.results.schema_comparisons import ComparisonRecord
from undersong.settings.evaluation import ComprehensionSettings
from undersong.settings.judge_names import judge_criterion
from undersong.store.parquet import read_parquet
from undersong.store.store import Artifact
from undersong.study.results.comparisons import adjust_p_values, recipe_comparisons
from undersong.study.results.contrasts import PrimaryPlan
from undersong.study.results.dose_response import dose_comparisons, dose_records
from undersong.study.results.judge_agreement import judge_agreement_records
from undersong.study.results.margin_comparisons import model_margin_comparison, recipe_margin_comparisons
from undersong.study.results.model_comparisons import marginal_effects, model_comparison, system_prompt_comparison
from undersong.study.results.notes import (
    comprehension_notes,
    design_notes,
    lost_reply_notes,
    margin_notes,
    truncation_notes,
)
from undersong.study.results.prompt_outcomes import PromptOutcomes
from undersong.study.results.proximity_vs_jsr import (
    proximity_vs_jsr_records,
    score_vs_jsr_records,
    screening_score_records,
)
from undersong.study.results.records import AuditRecord, ModelRecord, RunRecord
from undersong.study.results.screening import (
    axis_agreement_record,
    axis_fingerprint_records,
    corpus_overlaps,
    screening_records,
    selection_records,
    target_replies,
)
from undersong.types import Prompt, Reply, Sample, Verdict


def assemble_results(record: AuditRecord, show_replies: bool) -> tuple[Results, list[dict[str, Any]]]:
    """Assemble results.json.  Returns (results without provenance, every verdict as a row with its run)."""
    study = record.study
    all_runs = [run for model in record.models for run in (*model.runs, *model.defended_runs)]
    verdicts = _read_verdicts(a for run in all_runs for a in (run.verdicts, *(a for _, a in run.other_verdicts)))
    samples = _prompt_samples(record)
    comprehension_config = study.evaluation.comprehension

    def run_result(model: ModelRecord, run: RunRecord) -> RunResult:
        return _run_result(model, run, verdicts[run.verdicts.hash], samples, comprehension_config)

    runs = [run_result(model, run) for model in record.models for run in model.runs]
    defended_runs = [
        defended_run(run_result(model, run), run) for model in record.models for run in model.defended_runs
    ]
    defenses = defense_records(record, runs, defended_runs)
    last_step, targets = study.tuning.save_steps[-1], target_replies(record)
    primary, systems = PrimaryPlan.of_study(study), (study.undefended_system, study.system_defense)
    outcomes = PromptOutcomes.of_runs(
        (result, verdicts[run.verdicts.hash])
        for result, run in zip(runs, (run for model in record.models for run in model.runs), strict=True)
        if run.step in (0, last_step)
    )
    of_models = list(_model_comparisons(record, verdicts, last_step))
    results = Results(
        schema_version=SCHEMA,
        study=_study_record(record),
        runs=runs,
        defended_runs=defended_runs,
        comparisons=[
            *recipe_comparisons(runs, *systems, last_step, primary, outcomes),
            *adjust_p_values([comparison for comparison, _, _ in of_models]),
        ],
        margin_comparisons=[
            *recipe_margin_comparisons(runs, *systems, last_step, primary, outcomes),
            *adjust_p_values(list(filter(None, (model_margin_comparison(*sides) for sides in of_models)))),
        ],
        dose_response=dose_records(runs, study.undefended_system, last_step),
        dose_comparisons=dose_comparisons(runs, *systems, last_step, primary),
        marginal_effects=marginal_effects(runs, study.undefended_system, last_step),
        judge_agreement=judge_agreement_records(record, verdicts),
        proximity_vs_jsr=[row for m in record.models for row in proximity_vs_jsr_records(record, m, runs)],
        run_noise=run_noise_records(runs, study.undefended_system, last_step),
        variance_components=variance_records(record, verdicts, last_step),
        defense_tradeoffs=defenses,
        recommendations=recommendation_records(study, defenses),
        mechanism=mechanism_record(record, runs),
        target_replies=targets,
        screening=[row for m in record.models for row in screening_records(record, m)],
        selections=[row for m in record.models for row in selection_records(record, m)],
        corpus_overlap=corpus_overlaps(record),
        screening_scores=[row for m in record.models for row in screening_score_records(record, m)],
        score_vs_jsr=[row for m in record.models for row in score_vs_jsr_records(record, m, runs)],
        axis_fingerprints=[row for m in record.models for row in axis_fingerprint_records(record, m)],
        axis_agreement=axis_agreement_record(record, record.models[0], (*study.selection.fractions, 0.25)[0]),
        examples=[row for m in record.models for row in _examples(record, m, verdicts, show_replies)],
        notes=[
            *study.notes,
            *design_notes(record, targets),
            *lost_reply_notes(runs),
            *(margin_notes(runs) if study.evaluation.refusal_margin else []),
            *truncation_notes(runs),
            *comprehension_notes(runs, comprehension_config),
        ],
    )
    return results, [
        row for run in all_runs for row in _verdict_rows(run, verdicts[run.verdicts.hash], comprehension_config)
    ]


def study_outcomes(record: AuditRecord) -> Results:
    """Assemble the undefended runs with their rates, and nothing that is computed from them."""
    runs = [(model, run) for model in record.models for run in model.runs]
    verdicts, samples = _read_verdicts(run.verdicts for _, run in runs), _prompt_samples(record)
    return Results(
        schema_version=SCHEMA,
        study=_study_record(record),
        runs=[_run_result(model, run, verdicts[run.verdicts.hash], samples, None) for model, run in runs],
    )


def _read_verdicts(artifacts: Iterable[Artifact]) -> dict[str, list[Verdict]]:
    """Verdicts by the hash of their artifact."""
    from undersong.evaluation.verdicts import read_verdicts

    return {artifact.hash: read_verdicts(artifact.path / "verdicts.parquet") for artifact in artifacts}


def _prompt_samples(record: AuditRecord) -> dict[tuple[str, str], Sample]:
    """Samples by prompt set and id."""
    return {(name, sample.id): sample for name, corpus in record.sets.items() for sample in corpus.samples}


def _study_record(record: AuditRecord) -> StudyRecord:
    study = record.study
    return StudyRecord(
        name=study.study,
        description=study.description,
        models=list(study.models),
        protocol=study.evaluation.protocol,
        seeds=list(study.tuning.seeds),
        draws=list(study.tuning.draws),
        steps=[0, *study.tuning.save_steps],
        judge=study.evaluation.judge,
        judge_criterion=judge_criterion(study.evaluation.judge),
        undefended_system=study.undefended_system,
        system_defense=study.system_defense,
        primary_questions=list(study.primary_questions),
        primary_declared=bool(study.analysis.primary),
        config=study.model_dump(mode="json"),
    )


def _run_identity(run: RunRecord) -> dict[str, Any]:
    arm, selection = run.arm, run.arm.selection
    return {
        "arm": arm.name,
        "model": arm.model,
        "base_seed": arm.base_seed,
        "axis": arm.axis,
        "kind": arm.kind,
        "fraction": arm.fraction,
        "rule": arm.rule or None,
        "harm_set": arm.harm_set or None,
        "k": selection.k if selection else None,
        "train_modality": arm.modality,
        "seed": arm.seed,
        "draw": arm.draw,
        "step": run.step,
        "selection_hash": selection.ids_hash if selection else None,
    }


def _run_result(
    model: ModelRecord,
    run: RunRecord,
    verdicts: Sequence[Verdict],
    samples: Mapping[tuple[str, str], Sample],
    comprehension_config: ComprehensionSettings | None,
) -> RunResult:
    log_line = _read_log_line(run)
    speakers = {sample.id: sample.speaker for sample in samples.values()}
    rates = set_rates(verdicts, speakers, _finishes(run), _scored_exchanges(run, verdicts, samples))
    measurements = [] if comprehension_config is None else read_run_comprehension(run.comprehension)
    return RunResult(
        **_run_identity(run),
        loss=log_line.get("loss"),
        validation_loss=log_line.get("validation_loss"),
        mean_distance=_mean_distance(model, run),
        rates=add_comprehension(rates, measurements, verdicts, comprehension_config),
    )


def _scored_exchanges(
    run: RunRecord, verdicts: Sequence[Verdict], samples: Mapping[tuple[str, str], Sample]
) -> list[tuple[Prompt, Reply]] | None:
    """Prompt and reply of each verdict if word errors are counted, else None."""
    from undersong.evaluation.replies import read_replies

    if not any(verdict.judge == "wer" for verdict in verdicts):
        return None
    prompts = [
        Prompt(samples[verdict.set, verdict.prompt_id], verdict.set, verdict.harmful, verdict.modality, verdict.system)
        for verdict in verdicts
    ]
    return list(zip(prompts, read_replies(run.replies.path / "replies.parquet"), strict=True))


def _read_log_line(run: RunRecord) -> dict[str, Any]:
    """Line of the training log at the run's step."""
    if run.adapter is None:
        return {}
    adapter = run.defense.trained_adapter if run.defense else run.adapter
    lines = (adapter.path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return next((line for line in map(json.loads, lines) if line["step"] == run.step), {})


def _mean_distance(model: ModelRecord, run: RunRecord) -> float | None:
    """Mean distance of the training samples on the arm's axis to its harm set, by the score of the ranking."""
    from undersong.proximity.table import ranking_scores

    if run.arm.selection is None or run.arm.axis is None:
        return None
    artifact = model.proximities[run.arm.axis, run.arm.harm_set]
    table = read_parquet(artifact.path / "proximity.parquet")
    by_id = dict(zip(table.column("id").to_pylist(), ranking_scores(table).tolist()))
    return sum(by_id[i] for i in run.arm.selection.ids) / run.arm.selection.k


def _verdict_rows(
    run: RunRecord, verdicts: Sequence[Verdict], comprehension_config: ComprehensionSettings | None
) -> list[dict[str, Any]]:
    defense = run.defense
    labels = {
        **_run_identity(run),
        "defense": defense and defense.name,
        "retuned": defense is not None and defense.again,
    }
    labels["replies"] = f"{run.replies.stage}/{run.replies.location.name}"  # location in the store
    identity = {f"run_{key}": value for key, value in labels.items()}
    rows = [
        {**identity, **asdict(verdict), "finish": finish}
        for verdict, finish in zip(verdicts, _finishes(run), strict=True)
    ]
    return (
        rows
        if comprehension_config is None
        else [
            row | extra_columns
            for row, extra_columns in zip(rows, comprehension_columns(run.comprehension, verdicts), strict=True)
        ]
    )


def _finishes(run: RunRecord) -> list[str]:
    from undersong.evaluation.replies import read_finishes

    return read_finishes(run.replies.path / "replies.parquet")


def _model_comparisons(
    record: AuditRecord, verdicts: Mapping[str, Sequence[Verdict]], last_step: int
) -> Iterator[tuple[ComparisonRecord, Sequence[Verdict], Sequence[Verdict]]]:
    """Yield each comparison of scope `model`, with the verdicts of its sides a and b."""
    harmful_sets = [name for name, prompt_set in record.study.prompt_sets.items() if prompt_set.harmful]
    system, defense = record.study.undefended_system, record.study.system_defense
    for model in record.models:
        base = next(run for run in model.runs if run.arm.kind == "base")
        for run in model.runs:
            if run.arm.kind != "base" and run.step == last_step:
                before, after = verdicts[base.verdicts.hash], verdicts[run.verdicts.hash]
                asked = {(v.set, v.modality) for v in (*before, *after) if v.system == system}
                facts = RunResult(**_run_identity(run))
                for name, modality in product(harmful_sets, record.study.evaluation.modalities):
                    if (name, modality) in asked:  # prompts in noise are spoken only
                        yield model_comparison(facts, before, after, name, modality, system), before, after
                defended = {(v.set, v.modality) for v in after if defense is not None and v.system == defense}
                for name, modality in product(harmful_sets, record.study.evaluation.modalities):
                    if (name, modality) in defended & asked and run.arm.kind == "closest":
                        yield (
                            system_prompt_comparison(facts, after, name, modality, system, str(defense)),
                            after,
                            after,
                        )


def _examples(
    record: AuditRecord, model: ModelRecord, verdicts: Mapping[str, Sequence[Verdict]], show_replies: bool
) -> list[ReplyExample]:
    """Return some replies of the base and of each arm's first run; those to harmful prompts are redacted by default."""
    from undersong.evaluation.replies import read_replies

    last_step, texts = (
        record.study.tuning.save_steps[-1],
        {s.id: s.text for c in record.sets.values() for s in c.samples},
    )
    examples: list[ReplyExample] = []
    arm_names: set[str] = set()
    for run in model.runs:
        if run.arm.name in arm_names or run.step not in (0, last_step):
            continue
        arm_names.add(run.arm.name)
        counts: dict[tuple[str, str, str], int] = {}
        for verdict, reply in zip(verdicts[run.verdicts.hash], read_replies(run.replies.path / "replies.parquet")):
            key = (verdict.set, verdict.modality, verdict.system)
            counts[key] = counts.get(key, 0) + 1
            if verdict.modality != "audio" or counts[key] > record.study.evaluation.examples:
                continue
            examples.append(
                ReplyExample(
                    model=model.ref if len(record.study.models) > 1 else None,
                    arm=run.arm.name,
                    seed=run.arm.seed,
                    step=run.step,
                    prompt_set=verdict.set,
                    modality=verdict.modality,
                    system=verdict.system,
                    prompt_id=verdict.prompt_id,
                    prompt_text=texts.get(verdict.prompt_id),
                    verdict=verdict.verdict,
                    reply=reply.reply if show_replies or not verdict.harmful else None,
                    tokens=reply.tokens,
                )
            )
    return examples
