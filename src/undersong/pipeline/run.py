"""`undersong run`: a study in; results.json, results.parquet, verdicts.parquet, report.html and report.md out."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong import __version__
from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.arm import audit_arm
from undersong.pipeline.audit import audit
from undersong.pipeline.folders import RESULTS, for_study
from undersong.pipeline.heard import audio_of, places
from undersong.pipeline.records import AuditRecord, ModelRecord
from undersong.pipeline.results import assemble, defense_costs, result_hash
from undersong.pipeline.results.comprehended import shares_of
from undersong.pipeline.unfinished import finished, noting
from undersong.pipeline.uninstalled import refuse_uninstalled
from undersong.pipeline.workshop import Workshop
from undersong.store import Store, write_atomic
from undersong.study import Study


@dataclass(frozen=True)
class Finished:
    """Where the results are, their hash, and what the run cost."""

    folder: Path
    result_hash: str
    cpu_seconds: float
    results: dict[str, Any]


def run(
    study: Study,
    out: Path,
    store: Path | None = None,
    *,
    loading: Loading = PLAIN,
    show_replies: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> Finished:
    """Do what is not in the store yet, then write everything a reader needs to `out`."""
    began, started = _cpu(), time.time()
    root = store or out / "store"
    for_study(out, study.study, root)
    say = noting(study, out, root, loading, say)
    shop = Workshop(Store(root), loading, say)
    refuse_uninstalled(study, shop)
    record = audit(study, shop, say)
    results, rows = assemble(record, show_replies)
    found = result_hash(results)
    results["provenance"] = {
        "result_hash": found,
        "undersong": __version__,
        "store": str(root),
        "corpora": places(record, root),
        "device": loading.device,
        **loading.key,
        "heard": {model.ref: _heard(model) for model in record.models},
        "artefacts": _artefacts(record),
        "cpu_seconds_by_stage": _cost(record),
        "cpu_seconds_by_defense": defense_costs(record) if study.defenses else {},
        "cpu_seconds_this_time": round(_cpu() - began, 2),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        **_surroundings(record),
    }
    say("writing the report")
    _write(record, results, rows, out, show_replies)
    finished(out)
    return Finished(out, found, _cpu() - began, results)


def run_arm(
    study: Study,
    arm: str,
    out: Path,
    store: Path,
    *,
    loading: Loading = PLAIN,
    say: Callable[[str], None] = lambda _line: None,
) -> int:
    """Do one arm's share of a study in the store, and write no results; how many times the arm was asked."""
    for_study(out, study.study, store)
    return audit_arm(study, Workshop(Store(store), loading, say), arm, say)


def _cpu() -> float:
    """CPU seconds of this process and its finished children."""
    return sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _all_artefacts(record: AuditRecord) -> list[Any]:
    out = {c.artefact.hash: c.artefact for c in record.corpora}
    for m in record.models:
        made = [*m.features.values(), *m.vectors]
        made += [*m.measured.values(), *m.calm.values()]
        runs = (*m.runs, *m.defended)
        made += [a for run in runs for a in (run.adapter, run.replies, run.verdicts) if a is not None]
        made += [a for run in runs for _, a in run.also]
        made += [a for run in runs for a in (run.repeated, run.comprehension) if a is not None]
        done = [run.defense for run in m.defended if run.defense is not None]
        made += [a for one in done for a in (one.trained, one.altered, one.steering, *one.losses) if a is not None]
        made += [a for _, _, _, a in m.projections]
        out |= {a.hash: a for a in made}
    return list(out.values())


def _heard(model: ModelRecord) -> dict[str, Any]:
    """Which family a model is, where its system text went, and how often its encoder ran: once a distinct clip."""
    notes = [artefact.provenance()["notes"] for artefact in model.features.values()]
    if not notes:
        return {"family": None, "system_text": None, "revision": None, "encoder_passes": 0}  # it only answers
    facts = {key: notes[0].get(key) for key in ("family", "system_text", "revision")}
    return {**facts, "encoder_passes": sum(note["encoder_passes"] for note in notes)}


def _artefacts(record: AuditRecord) -> dict[str, int]:
    counts: dict[str, int] = {}
    for artefact in _all_artefacts(record):
        counts[artefact.stage] = counts.get(artefact.stage, 0) + 1
    return counts


def _cost(record: AuditRecord) -> dict[str, float]:
    """CPU seconds each stage took when its artefacts were made."""
    cost: dict[str, float] = {}
    for artefact in _all_artefacts(record):
        cost[artefact.stage] = cost.get(artefact.stage, 0.0) + artefact.provenance()["cpu_seconds"]
    return {stage: round(seconds, 2) for stage, seconds in cost.items()}


def _surroundings(record: AuditRecord) -> dict[str, Any]:
    """Versions as recorded when the base's replies were made."""
    facts = record.models[0].runs[0].replies.provenance()
    return {key: facts[key] for key in ("packages", "python", "platform") if key in facts}


def _write(
    record: AuditRecord, results: dict[str, Any], rows: list[dict[str, Any]], out: Path, show_replies: bool
) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from undersong.report import write_markdown, write_report

    def parquet(table_rows: list[dict[str, Any]]) -> bytes:
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(table_rows), sink, compression="zstd")
        return sink.getvalue()

    flat = [
        {
            **{k: run[k] for k in results["runs"][0] if k != "sets"},
            "defense": run.get("defense"),
            "again": run.get("again", False),
            **{k: v for k, v in entry.items() if k not in ("by_speaker", "comprehension")},
            **(shares_of(entry) if record.study.evaluation.comprehension else {}),
        }
        for run in [*results["runs"], *results["defended"]]
        for entry in run["sets"]
    ]
    # Unsorted, because a report's rows stand in the order of the results; first, because it says whose the folder is.
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(out / RESULTS, text.encode() + b"\n")
    write_atomic(out / "verdicts.parquet", parquet(rows))
    write_atomic(out / "results.parquet", parquet(flat))
    write_report(results, out / "report.html", audio_of(record, results), show_replies)
    write_markdown(results, out / "report.md")
