"""Puts results.json together from an audit's artefacts.  Every number with n, an interval and its scope.

All rates can be recomputed from `verdicts.parquet` beside it.  Knows artefacts and statistics; makes no measurement.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from undersong.pipeline.records import AuditRecord, ModelRecord, RunRecord
from undersong.pipeline.results.comparisons import correct, model_comparison, recipe_comparisons
from undersong.pipeline.results.comprehended import columns, told_of, with_comprehension
from undersong.pipeline.results.defended import defense_entries, defense_facts, recommended_entries
from undersong.pipeline.results.explained import mechanism_entry
from undersong.pipeline.results.foretold import foretold_entries, score_entries
from undersong.pipeline.results.judged import judge_entries
from undersong.pipeline.results.marginals import marginals
from undersong.pipeline.results.noise import noise_entries
from undersong.pipeline.results.notes import comprehension_notes, cut_notes, failed_notes, standing_notes
from undersong.pipeline.results.predicted import predicted_entries
from undersong.pipeline.results.rates import set_rates
from undersong.pipeline.results.screened import (
    agreement_entry,
    fingerprint_entries,
    screen_entries,
    selection_entries,
)
from undersong.pipeline.results.variance import variance_entries
from undersong.store import canonical
from undersong.study import Comprehension
from undersong.study.judges import judge_kind
from undersong.types import Prompt, Reply, Sample, Verdict

SCHEMA = "undersong-results/1"
EXAMPLES_A_SET = 2


def assemble(record: AuditRecord, show_replies: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(results without provenance, every verdict as a row with its run)."""
    from undersong.evaluation.verdicts import read_verdicts

    study = record.study
    every = [run for m in record.models for run in (*m.runs, *m.defended)]
    judged = [a for run in every for a in (run.verdicts, *(a for _, a in run.also))]
    verdicts = {a.hash: read_verdicts(a.checked().path / "verdicts.parquet") for a in judged}
    samples = {(name, s.id): s for name, corpus in record.sets.items() for s in corpus.samples}
    how = study.evaluation.comprehension
    runs = [_run(m, run, verdicts[run.verdicts.hash], samples, how) for m in record.models for run in m.runs]
    defended = [
        {**_run(m, run, verdicts[run.verdicts.hash], samples, how), **defense_facts(run)}
        for m in record.models
        for run in m.defended
    ]
    defenses = defense_entries(record, runs, defended)
    last, targets = study.tuning.steps[-1], _targets(record)
    results = {
        "schema": SCHEMA,
        "study": _study(record),
        "runs": runs,
        "comparisons": [
            *recipe_comparisons(runs, study.plain, study.system_defense, last),
            *correct(_model_comparisons(record, verdicts, last)),
        ],
        "judges": judge_entries(record, verdicts),
        "predicts": [entry for m in record.models for entry in predicted_entries(record, m, runs)],
        "run_noise": noise_entries(runs, study.plain, last),
        "variance": variance_entries(record, verdicts, last),
        "marginals": marginals(runs, study.plain, last),
        "defended": defended,
        "defenses": defenses,
        "recommended": recommended_entries(study, defenses),
        "mechanism": mechanism_entry(record, runs),
        "targets": targets,
        "screen": [entry for m in record.models for entry in screen_entries(record, m)],
        "selections": [entry for m in record.models for entry in selection_entries(record, m)],
        "overlap": [dict(zip(("a", "b", "kind", "pairs"), row)) for row in record.overlap],
        "screening_score": [entry for m in record.models for entry in score_entries(record, m)],
        "foretold": [entry for m in record.models for entry in foretold_entries(record, m, runs)],
        "fingerprint": [entry for m in record.models for entry in fingerprint_entries(record, m)],
        "axes_agreement": agreement_entry(record, record.models[0], (*study.selection.fractions, 0.25)[0]),
        "examples": [e for m in record.models for e in _examples(record, m, verdicts, show_replies)],
        "notes": [
            *study.notes,
            *standing_notes(record, targets),
            *failed_notes(runs),
            *cut_notes(runs),
            *comprehension_notes(runs, how),
        ],
    }
    return results, [row for run in every for row in _rows(run, verdicts[run.verdicts.hash], how)]


def result_hash(results: Mapping[str, Any]) -> str:
    """SHA-256 of canonical results without provenance (and so without times)."""
    kept = {key: value for key, value in results.items() if key != "provenance"}
    return hashlib.sha256(canonical(kept).encode()).hexdigest()


def _study(record: AuditRecord) -> dict[str, Any]:
    study = record.study
    return {
        "name": study.study,
        "description": study.description,
        "models": list(study.models),
        "protocol": study.evaluation.protocol,
        "seeds": list(study.tuning.seeds),
        "draws": list(study.tuning.draws),
        "steps": [0, *study.tuning.steps],
        "judge": study.evaluation.judge,
        "judge_kind": judge_kind(study.evaluation.judge),
        "config": study.model_dump(mode="json"),
    }


def _identity(run: RunRecord) -> dict[str, Any]:
    arm, chosen = run.arm, run.arm.selection
    return {
        "arm": arm.name,
        "model": arm.model,
        "base_seed": arm.base_seed,
        "axis": arm.axis,
        "kind": arm.kind,
        "fraction": arm.fraction,
        "rule": arm.rule or None,
        "harm_set": arm.harm_set or None,
        "k": chosen.k if chosen else None,
        "train_modality": arm.modality,
        "seed": arm.seed,
        "draw": arm.draw,
        "step": run.step,
        "selection_hash": chosen.ids_hash if chosen else None,
    }


def _run(
    model: ModelRecord,
    run: RunRecord,
    verdicts: Sequence[Verdict],
    samples: Mapping[tuple[str, str], Sample],
    how: Comprehension | None,
) -> dict[str, Any]:
    logged = _logged(run)
    speakers = {sample.id: sample.speaker for sample in samples.values()}
    losses = {"loss": logged.get("loss"), "validation_loss": logged.get("validation_loss")}
    sets = set_rates(verdicts, speakers, _finishes(run), _said(run, verdicts, samples))
    if how is not None:
        sets = with_comprehension(sets, told_of(run), verdicts, how)
    return {**_identity(run), **losses, "mean_distance": _mean_distance(model, run), "sets": sets}


def _said(
    run: RunRecord, verdicts: Sequence[Verdict], samples: Mapping[tuple[str, str], Sample]
) -> list[tuple[Prompt, Reply]] | None:
    """Prompt and reply of each verdict, where word errors are counted; else they need not be read."""
    from undersong.evaluation.replies import read_replies

    if not any(v.judge == "wer" for v in verdicts):
        return None
    prompts = [Prompt(samples[v.set, v.prompt_id], v.set, v.harmful, v.modality, v.system) for v in verdicts]
    return list(zip(prompts, read_replies(run.replies.checked().path / "replies.parquet"), strict=True))


def _logged(run: RunRecord) -> dict[str, Any]:
    """What the training's log says of the run's step."""
    if run.adapter is None:
        return {}
    trained = run.defense.trained if run.defense else run.adapter
    lines = (trained.checked().path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return next((line for line in map(json.loads, lines) if line["step"] == run.step), {})


def _mean_distance(model: ModelRecord, run: RunRecord) -> float | None:
    """Mean distance of the training samples on the arm's own axis to its own harm set, by the score of the ranking."""
    import pyarrow.parquet as pq

    from undersong.proximity import scores

    if run.arm.selection is None or run.arm.axis is None:
        return None
    near = model.measured[run.arm.axis, run.arm.harm_set]
    table = pq.read_table(near.checked().path / "proximity.parquet")
    by_id = dict(zip(table.column("id").to_pylist(), scores(table).tolist()))
    return sum(by_id[i] for i in run.arm.selection.ids) / run.arm.selection.k


def _rows(run: RunRecord, verdicts: Sequence[Verdict], how: Comprehension | None) -> list[dict[str, Any]]:
    from dataclasses import asdict

    done = run.defense
    named = {**_identity(run), "defense": done and done.name, "again": done is not None and done.again}
    named["replies"] = f"{run.replies.stage}/{run.replies.path.name}"  # where they are in the store
    identity = {f"run_{key}": value for key, value in named.items()}
    rows = [{**identity, **asdict(v), "finish": end} for v, end in zip(verdicts, _finishes(run), strict=True)]
    return rows if how is None else [row | more for row, more in zip(rows, columns(run, verdicts), strict=True)]


def _finishes(run: RunRecord) -> list[str]:
    from undersong.evaluation.replies import read_finishes

    return read_finishes(run.replies.checked().path / "replies.parquet")


def _model_comparisons(
    record: AuditRecord, verdicts: Mapping[str, Sequence[Verdict]], last: int
) -> list[dict[str, Any]]:
    harm = [name for name, one in record.study.sets.items() if one.harmful]
    out = []
    for model in record.models:
        base = next(run for run in model.runs if run.arm.kind == "base")
        for run in model.runs:
            if run.arm.kind != "base" and run.step == last:
                pair = verdicts[base.verdicts.hash], verdicts[run.verdicts.hash]
                out += [
                    model_comparison(_identity(run), *pair, name, modality, record.study.plain)
                    for name in harm
                    for modality in record.study.evaluation.modalities
                ]
    return out


def _examples(
    record: AuditRecord, model: ModelRecord, verdicts: Mapping[str, Sequence[Verdict]], show_replies: bool
) -> list[dict[str, Any]]:
    """A few replies of the base and of each arm's first run; to harmful prompts redacted unless asked for."""
    from undersong.evaluation.replies import read_replies

    last, texts = record.study.tuning.steps[-1], {s.id: s.text for c in record.sets.values() for s in c.samples}
    out, seen = [], set()
    for run in model.runs:
        if run.arm.name in seen or run.step not in (0, last):
            continue
        seen.add(run.arm.name)
        counts: dict[tuple[str, str, str], int] = {}
        for v, reply in zip(verdicts[run.verdicts.hash], read_replies(run.replies.checked().path / "replies.parquet")):
            key = (v.set, v.modality, v.system)
            counts[key] = counts.get(key, 0) + 1
            if v.modality != "audio" or counts[key] > EXAMPLES_A_SET:
                continue
            shown = reply.reply if show_replies or not v.harmful else None
            where = {"arm": run.arm.name, "seed": run.arm.seed, "step": run.step, "set": v.set, "modality": v.modality}
            said = {"prompt_id": v.prompt_id, "text": texts.get(v.prompt_id), "verdict": v.verdict, "reply": shown}
            out.append({**where, "system": v.system, **said, "tokens": reply.tokens})
    return out


def _targets(record: AuditRecord) -> dict[str, Any]:
    """How the replies begin that the pool has to be learned."""
    from undersong.corpora.openers import openers

    column = record.study.tuning.target
    found = openers(sample.column(column) for sample in record.pool.samples)
    return {"column": column, "n": found.n, "affirmative": found.share, "most": found.most}
