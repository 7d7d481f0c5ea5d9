"""`undersong run`: audits a study and writes results.json, results.parquet, verdicts.parquet, report.html and
report.md."""

from __future__ import annotations

import hashlib
import io
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong import __version__
from undersong.escaping import escaped_json
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.research.defenses.results import defense_cpu_seconds
from undersong.research.registration import check_registration, find_registration, registration_lines
from undersong.research.sequential_seeds import audit_sequentially, sequential_note
from undersong.results.comprehension import comprehension_shares
from undersong.results.schema import DefendedRun, ModelFacts, Provenance, Results, RunResult, result_hash
from undersong.stages.context import RunContext
from undersong.store.atomic import write_atomic
from undersong.store.parquet import write_parquet
from undersong.store.store import Artifact, Store
from undersong.study.arm_jobs import audit_arm
from undersong.study.assembly import assemble_results
from undersong.study.audit import audit_study
from undersong.study.planning.dependencies import check_dependencies
from undersong.study.report_audio import collect_report_audio, played_corpus_paths
from undersong.study.results.records import AuditRecord, ModelRecord
from undersong.study.schema import Study
from undersong.study.study_folder import (
    RESULTS_FILE,
    RUN_VERB,
    check_study_folder,
    clear_unfinished,
    locked_study_folder,
    mark_unfinished,
)

VERDICTS_TABLE, RATES_TABLE = "verdicts.parquet", "results.parquet"


@dataclass(frozen=True)
class RunOutput:
    """Output of a run: folder, hash of the results, CPU seconds and results."""

    folder: Path
    result_hash: str
    cpu_seconds: float
    results: dict[str, Any]  # the content of results.json


def run_audit(
    study: Study,
    out: Path,
    store: Path | None = None,
    *,
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS,
    show_replies: bool = False,
    registration: Path | None = None,
    say: Callable[[str], None] = lambda _line: None,
    verb: str = RUN_VERB,
) -> RunOutput:
    """Run what is not in the store yet, then write results and reports to `out`.

    Args:
        study: The study.
        out: The output folder.
        store: The store; default: `out/store`.
        loading: Loading options of the models.
        show_replies: Include replies to harmful prompts in the results and the report (mode 0600).
        registration: Registration of the study; default: registration.json in `out`, if it is there.
        say: Receives progress lines.
        verb: The command that goes on with the study if it is stopped.

    Raises:
        UndersongError: The folder holds something else, a package is missing, or a stage fails.
    """
    cpu_at_start, started_at = _cpu_seconds(), time.time()
    root = store or out / "store"
    check_study_folder(out, study.study, root)
    registered = find_registration(registration, out)
    for line in registration_lines(registration, out, study, loading):
        say(line)
    say = mark_unfinished(study, out, root, loading, say, verb)
    ctx = RunContext(Store(root), loading, say)
    check_dependencies(study, ctx)
    sequential = None
    if study.tuning.sequential_seeds is None:
        record = audit_study(study, ctx)
    else:
        record, sequential = audit_sequentially(study, ctx)
    results, rows = assemble_results(record, show_replies)
    if sequential is not None:
        notes = [sequential_note(sequential), *results.notes]
        results = results.model_copy(update={"sequential": sequential, "notes": notes})
    digest = result_hash(results)
    rate_rows = rate_table_rows(results, record.study.evaluation.comprehension is not None)
    tables = {VERDICTS_TABLE: _parquet_bytes(rows), RATES_TABLE: _parquet_bytes(rate_rows)}
    provenance = Provenance(
        result_hash=digest,
        undersong=__version__,
        store=str(root),
        corpora=played_corpus_paths(record, root),
        device=loading.device,
        **loading.cache_key,
        model_facts={model.ref: _model_facts(model) for model in record.models},
        artifacts=_count_artifacts(record),
        run_adapters=_run_adapters(record),
        cpu_seconds_by_stage=_cpu_seconds_by_stage(record),
        cpu_seconds_by_defense=defense_cpu_seconds(record) if study.defenses else {},
        cpu_seconds_this_run=round(_cpu_seconds() - cpu_at_start, 2),
        files={name: hashlib.sha256(data).hexdigest() for name, data in tables.items()},
        created=time_stamp(started_at),
        registration=None if registered is None else check_registration(registered, study, loading, results),
        **_recorded_environment(record),
    )
    say("writing the report")
    content = results.model_copy(update={"provenance": provenance}).content
    with locked_study_folder(out):
        check_study_folder(out, study.study, root)  # checked again, because another run may have written there
        _write_outputs(record, results, content, tables, out, show_replies)
        clear_unfinished(out)
    return RunOutput(out, digest, _cpu_seconds() - cpu_at_start, content)


def run_arm(
    study: Study,
    arm: str,
    out: Path,
    store: Path,
    *,
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS,
    registration: Path | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> int:
    """Run one arm of a study in the store, without writing results; returns how many times the arm was evaluated.

    Args:
        study: The study.
        arm: Name of the arm.
        out: The study's output folder.
        store: The store.
        loading: Loading options of the models.
        registration: Registration of the study; default: registration.json in `out`, if it is there.
        say: Receives progress lines, and how the study differs from its registration.
    """
    check_study_folder(out, study.study, store)
    for line in registration_lines(registration, out, study, loading):
        say(line)
    return audit_arm(study, RunContext(Store(store), loading, say), arm)


def time_stamp(seconds: float) -> str:
    """Format seconds since 1970 as a time in UTC, such as 2026-04-16T09:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _cpu_seconds() -> float:
    """CPU seconds of this process and its finished children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _all_artifacts(record: AuditRecord) -> list[Any]:
    by_hash = {corpus.artifact.hash: corpus.artifact for corpus in record.corpora}
    for model in record.models:
        artifacts = [*model.features.values(), *model.vectors]
        artifacts += [*model.proximities.values(), *model.benign_proximity.values()]
        runs = (*model.runs, *model.defended_runs)
        artifacts += [a for run in runs for a in (run.adapter, run.replies, run.verdicts) if a is not None]
        artifacts += [a for run in runs for _, a in run.other_verdicts]
        artifacts += [a for run in runs for a in (run.repetitions, run.comprehension) if a is not None]
        defenses = [run.defense for run in model.defended_runs if run.defense is not None]
        artifacts += [
            a
            for defense in defenses
            for a in (defense.trained_adapter, defense.edited_adapter, defense.steering, *defense.losses)
            if a is not None
        ]
        artifacts += [a for _, _, _, a in model.projections]
        by_hash |= {a.hash: a for a in artifacts}
    return list(by_hash.values())


def _run_adapters(record: AuditRecord) -> list[str | None]:
    """Hash of each run's adapter, in the order of the results: the undefended runs of all models come first."""
    adapters: list[Artifact | None] = [run.adapter for model in record.models for run in model.runs]
    defended_runs = (run for model in record.models for run in model.defended_runs)
    for defense in (run.defense for run in defended_runs):
        adapters.append(None if defense is None else defense.edited_adapter or defense.trained_adapter)
    return [None if adapter is None else adapter.hash for adapter in adapters]


def _model_facts(model: ModelRecord) -> ModelFacts:
    """Return the family of a model, the place of its system prompt, and how often its encoder ran."""
    notes = [artifact.provenance()["notes"] for artifact in model.features.values()]
    if not notes:
        return ModelFacts()  # it only answers
    return ModelFacts(
        family=notes[0].get("family"),
        system_text=notes[0].get("system_text"),
        revision=notes[0].get("revision"),
        encoder_passes=sum(note["encoder_passes"] for note in notes),
    )


def _count_artifacts(record: AuditRecord) -> dict[str, int]:
    counts: dict[str, int] = {}
    for artifact in _all_artifacts(record):
        counts[artifact.stage] = counts.get(artifact.stage, 0) + 1
    return counts


def _cpu_seconds_by_stage(record: AuditRecord) -> dict[str, float]:
    """CPU seconds of each stage, from when its artifacts were made."""
    cost: dict[str, float] = {}
    for artifact in _all_artifacts(record):
        cost[artifact.stage] = cost.get(artifact.stage, 0.0) + artifact.provenance()["cpu_seconds"]
    return {stage: round(seconds, 2) for stage, seconds in cost.items()}


def _recorded_environment(record: AuditRecord) -> dict[str, Any]:
    """Versions recorded when the base's replies were made."""
    facts = record.models[0].runs[0].replies.provenance()
    return {key: facts[key] for key in ("packages", "python", "platform") if key in facts}


def _write_outputs(
    record: AuditRecord,
    results: Results,
    content: dict[str, Any],
    tables: Mapping[str, bytes],
    out: Path,
    show_replies: bool,
) -> None:
    from undersong.report.markdown import write_markdown
    from undersong.report.page import write_report

    # Unsorted, because a report's rows follow the order of the results. Written first, to mark the folder's study.
    text = escaped_json(content, indent=1)
    write_atomic(out / RESULTS_FILE, text.encode() + b"\n", 0o600 if show_replies else 0o644)
    for name, data in tables.items():
        write_atomic(out / name, data)
    write_report(content, out / "report.html", collect_report_audio(record, results), show_replies)
    write_markdown(content, out / "report.md")


def _parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa

    sink = io.BytesIO()
    write_parquet(pa.Table.from_pylist(rows), sink, compression="zstd")
    return sink.getvalue()


def rate_table_rows(results: Results, comprehension: bool) -> list[dict[str, Any]]:
    """Return the rows of results.parquet, one per run and rate, undefended and defended, without nested fields."""
    return [
        {
            **run.model_dump(include=set(RunResult.model_fields), exclude={"rates"}),
            "defense": run.defense if isinstance(run, DefendedRun) else None,
            "retuned": isinstance(run, DefendedRun) and run.retuned,
            **rate.model_dump(exclude={"by_voice", "comprehension"}),
            **(comprehension_shares(rate) if comprehension else {}),
        }
        for run in [*results.runs, *results.defended_runs]
        for rate in run.rates
    ]
