"""The screening part of results.json: what lies close on each axis, what was kept, how axes and selections agree.

Knows proximity tables and corpora; does not know models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.pipeline.records import AuditRecord, ModelRecord
from undersong.pipeline.stages.selections import rules_of
from undersong.pipeline.workshop import Corpus
from undersong.types import Sample

if TYPE_CHECKING:
    import pyarrow as pa

CLOSEST, DISTANT, BINS = 10, 5, 24


def screen_entries(record: AuditRecord, model: ModelRecord) -> list[dict[str, Any]]:
    """One entry an axis and harm set."""
    return [_axis(record, model, axis, name) for axis, name in model.measured]


def _axis(record: AuditRecord, model: ModelRecord, axis: str, name: str) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from undersong.encoders.vectors import read_embeddings
    from undersong.proximity import how, scores

    table = pq.read_table(model.measured[axis, name].checked().path / "proximity.parquet")
    pool_embeddings = read_embeddings(model.embeddings[axis][0].checked().path)
    facts = how(table)
    values = scores(table).astype(np.float64)
    counts, edges = np.histogram(values, bins=BINS)
    rows = sorted(table.to_pylist(), key=lambda row: row["rank"])
    by_id, harm = _by_id(record.pool), _by_id(record.harm[name])
    lost = [*record_quarantine(record.pool), *({"id": q.id, "reason": q.reason} for q in pool_embeddings.quarantined)]
    quartiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return {
        "axis": axis,
        "harm_set": name,
        "encoder": record.study.axes[axis],
        "model": model.ref,
        "score": facts["score"],
        "centred": facts["centred"],
        "n_pool": len(rows),
        "n_harm": len(record.harm[name].samples),
        "quarantined": lost,
        "distances": dict(zip(("min", "q25", "median", "q75", "max"), quartiles)),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "by_label": _by_label(dict(zip(table.column("id").to_pylist(), values.tolist())), by_id),
        "closest": [_near(row, by_id, harm) for row in rows[:CLOSEST]],
        "distant": [_near(row, by_id, harm) for row in rows[-DISTANT:]],
    }


def record_quarantine(corpus: Corpus) -> list[dict[str, str]]:
    """What a corpus left out, with reasons."""
    import pyarrow.parquet as pq

    return pq.read_table(corpus.artefact.checked().path / "quarantine.parquet").to_pylist()


def _by_id(corpus: Corpus) -> dict[str, Sample]:
    return {sample.id: sample for sample in corpus.samples}


def _near(row: Mapping[str, Any], pool: Mapping[str, Sample], harm: Mapping[str, Sample]) -> dict[str, Any]:
    sample, nearest = pool[row["id"]], harm[row["nearest_id"]]
    kept = ("rank", "id", "distance", "distance_centred", "nearest_id", "second_distance")
    return {
        **{key: row[key] for key in kept},
        "text": sample.text,
        "speaker": sample.speaker,
        "nearest_text": nearest.text,
    }


def columns_of(samples: Sequence[Sample], most: int = 24) -> list[str]:
    """Manifest columns that group samples: the speaker, and labels with few values."""
    names = ["speaker", *dict.fromkeys(name for sample in samples for name, _ in sample.labels)]
    return [name for name in names if 1 < len({s.column(name) for s in samples}) <= most]


def _by_label(distances: Mapping[str, float], pool: Mapping[str, Sample]) -> dict[str, dict[str, dict[str, float]]]:
    out: dict[str, dict[str, dict[str, float]]] = {}
    for column in columns_of(list(pool.values())):
        groups: dict[str, list[float]] = {}
        for name, distance in distances.items():
            groups.setdefault(str(pool[name].column(column)), []).append(distance)
        out[column] = {value: {"n": len(d), "median": float(np.median(d))} for value, d in sorted(groups.items())}
    return out


def selection_entries(record: AuditRecord, model: ModelRecord) -> list[dict[str, Any]]:
    """One entry a selection: its hash, who shares it, its overlap with the others, its balance against the pool."""
    from undersong.proximity import facts_of, overlaps, same_as, selection_report

    chosen, to = model.selections, {rule.label: rule.to for rule in rules_of(record.study)}
    overlap, same = overlaps(chosen), same_as(chosen)
    pool, facts = _by_id(record.pool), facts_of(record.pool.samples)
    seen: dict[str, dict[str, Any]] = {}
    for label, selection in chosen.items():
        name, _, draw = label.rpartition("/draw ")
        if name in seen and selection.kind != "random":
            continue  # only random draws anything: else the same selection under every draw
        axis, kind = name.split("/")[:2]
        found = selection_report({label: selection}, tables_to(model, to[name]), facts)[label]
        seen[name if selection.kind != "random" else label] = {
            "axis": axis,
            "harm_set": to[name],
            "kind": kind,
            "rule": selection.rule or None,
            "fraction": selection.fraction,
            "k": selection.k,
            "asked": selection.asked,
            "draw": int(draw) if selection.kind == "random" else None,
            "hash": selection.ids_hash,
            "notes": list(selection.notes),
            "same_as": [other for other in same[label] if other.rpartition("/draw ")[0] != name],
            "overlap": overlap[label],
            "balance": _balance([pool[i] for i in selection.ids], list(pool.values())),
            "affirmative": [_affirmative(record, side) for side in ([pool[i] for i in selection.ids], pool.values())],
            "seconds": {
                "selection": _seconds([pool[i] for i in selection.ids]),
                "pool": _seconds(list(pool.values())),
            },
            **{key: found[key] for key in ("closest_on", "numbers", "scores", "matching", "separation")},
        }
    return list(seen.values())


def tables_to(model: ModelRecord, harm_set: str) -> dict[str, pa.Table]:
    """Axis -> its proximity table to one harm set."""
    import pyarrow.parquet as pq

    return {
        axis: pq.read_table(found.checked().path / "proximity.parquet")
        for (axis, to), found in model.measured.items()
        if to == harm_set
    }


def _balance(selected: Sequence[Sample], pool: Sequence[Sample]) -> dict[str, dict[str, list[float]]]:
    from undersong.statistics import balance

    return {
        column: {
            value: list(shares)
            for value, shares in balance(
                [str(s.column(column)) for s in selected], [str(s.column(column)) for s in pool]
            ).items()
        }
        for column in columns_of(pool)
    }


def _affirmative(record: AuditRecord, samples: Iterable[Sample]) -> float:
    """Share of the replies to learn that begin with an affirmative opener."""
    from undersong.corpora.openers import openers

    return openers(sample.column(record.study.tuning.target) for sample in samples).share


def _seconds(samples: Sequence[Sample]) -> float | None:
    lengths = [s.seconds for s in samples if s.seconds is not None]
    return float(np.mean(lengths)) if lengths else None


def agreement_entry(record: AuditRecord, model: ModelRecord, fraction: float) -> dict[str, Any] | None:
    """Rank correlation of the axes, and how much of their closest fraction they share."""
    from undersong.proximity import axes_agreement

    if len(model.proximity) < 2:
        return None
    tables = tables_to(model, next(iter(record.harm)))
    found = axes_agreement(tables, fraction)
    return {
        "axes": list(found.axes),
        "spearman": np.asarray(found.spearman).tolist(),
        "overlap_closest": np.asarray(found.overlap_closest).tolist(),
    }


def fingerprint_entries(record: AuditRecord, model: ModelRecord) -> list[dict[str, Any]]:
    """Each internal axis of a model against the reference axes, before any training: which of them does it hear?"""
    from undersong.encoders import is_internal
    from undersong.encoders.vectors import read_embeddings
    from undersong.proximity import facts_of, fingerprint

    tables = tables_to(model, next(iter(record.harm)))
    vectors = {axis: read_embeddings(pair[0].checked().path) for axis, pair in model.embeddings.items()}
    own = [axis for axis, spec in record.study.axes.items() if is_internal(spec)]
    references = {axis: table for axis, table in tables.items() if axis not in own}
    if not references:
        return []
    facts = facts_of(record.pool.samples)
    made = [fingerprint(references, tables[axis], vectors=vectors, facts=facts) for axis in own]
    return [{"model": model.ref, **asdict(one)} for one in made]
