"""Screening entries of results.json: proximity on each axis, selections, and agreement of axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.results.records import AuditRecord, ModelRecord
from undersong.stages.context import Corpus
from undersong.stages.selection import arm_rules
from undersong.types import Sample

if TYPE_CHECKING:
    import pyarrow as pa

CLOSEST, DISTANT, BINS = 10, 5, 24


def screening_entries(record: AuditRecord, model: ModelRecord) -> list[dict[str, Any]]:
    """One entry an axis and harm set."""
    return [_axis_entry(record, model, axis, name) for axis, name in model.proximities]


def _axis_entry(record: AuditRecord, model: ModelRecord, axis: str, harm_set: str) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from undersong.encoders.embeddings import read_embeddings
    from undersong.proximity import ranking_metadata, ranking_scores

    table = pq.read_table(model.proximities[axis, harm_set].verify().path / "proximity.parquet")
    pool_embeddings = read_embeddings(model.embeddings[axis][0].verify().path)
    facts = ranking_metadata(table)
    values = ranking_scores(table).astype(np.float64)
    counts, edges = np.histogram(values, bins=BINS)
    rows = sorted(table.to_pylist(), key=lambda row: row["rank"])
    by_id, harm_by_id = _samples_by_id(record.pool), _samples_by_id(record.harm[harm_set])
    quarantined = [
        *corpus_quarantine(record.pool),
        *({"id": q.id, "reason": q.reason} for q in pool_embeddings.quarantined),
    ]
    quartiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return {
        "axis": axis,
        "harm_set": harm_set,
        "encoder": record.study.axes[axis],
        "model": model.ref,
        "score": facts["score"],
        "centred": facts["centred"],
        "n_pool": len(rows),
        "n_harm": len(record.harm[harm_set].samples),
        "quarantined": quarantined,
        "distances": dict(zip(("min", "q25", "median", "q75", "max"), quartiles)),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "by_label": _medians_by_label(dict(zip(table.column("id").to_pylist(), values.tolist())), by_id),
        "closest": [_neighbor_entry(row, by_id, harm_by_id) for row in rows[:CLOSEST]],
        "distant": [_neighbor_entry(row, by_id, harm_by_id) for row in rows[-DISTANT:]],
    }


def corpus_quarantine(corpus: Corpus) -> list[dict[str, str]]:
    """What a corpus left out, with reasons."""
    import pyarrow.parquet as pq

    return pq.read_table(corpus.artifact.verify().path / "quarantine.parquet").to_pylist()


def _samples_by_id(corpus: Corpus) -> dict[str, Sample]:
    return {sample.id: sample for sample in corpus.samples}


def _neighbor_entry(row: Mapping[str, Any], pool: Mapping[str, Sample], harm: Mapping[str, Sample]) -> dict[str, Any]:
    sample, nearest = pool[row["id"]], harm[row["nearest_id"]]
    copied_columns = ("rank", "id", "distance", "distance_centred", "nearest_id", "second_distance")
    return {
        **{key: row[key] for key in copied_columns},
        "text": sample.text,
        "speaker": sample.speaker,
        "nearest_text": nearest.text,
    }


def grouping_columns(samples: Sequence[Sample], max_values: int = 24) -> list[str]:
    """Manifest columns that group samples: the speaker, and labels with few values."""
    names = ["speaker", *dict.fromkeys(name for sample in samples for name, _ in sample.labels)]
    return [name for name in names if 1 < len({s.column(name) for s in samples}) <= max_values]


def _medians_by_label(
    distances: Mapping[str, float], pool: Mapping[str, Sample]
) -> dict[str, dict[str, dict[str, float]]]:
    medians: dict[str, dict[str, dict[str, float]]] = {}
    for column in grouping_columns(list(pool.values())):
        groups: dict[str, list[float]] = {}
        for name, distance in distances.items():
            groups.setdefault(str(pool[name].column(column)), []).append(distance)
        medians[column] = {value: {"n": len(d), "median": float(np.median(d))} for value, d in sorted(groups.items())}
    return medians


def selection_entries(record: AuditRecord, model: ModelRecord) -> list[dict[str, Any]]:
    """One entry a selection: its hash, who shares it, its overlap with the others, its balance against the pool."""
    from undersong.proximity import describe_selection, equal_selections, sample_metadata_table, selection_overlaps

    selections, harm_set_by_rule = model.selections, {rule.label: rule.harm_set for rule in arm_rules(record.study)}
    overlap, same = selection_overlaps(selections), equal_selections(selections)
    pool, facts = _samples_by_id(record.pool), sample_metadata_table(record.pool.samples)
    entries: dict[str, dict[str, Any]] = {}
    for label, selection in selections.items():
        name, _, draw = label.rpartition("/draw ")
        if name in entries and selection.kind != "random":
            continue  # only random draws anything: else the same selection under every draw
        axis, kind = name.split("/")[:2]
        report = describe_selection({label: selection}, load_proximity_tables(model, harm_set_by_rule[name]), facts)[
            label
        ]
        entries[name if selection.kind != "random" else label] = {
            "axis": axis,
            "harm_set": harm_set_by_rule[name],
            "kind": kind,
            "rule": selection.rule or None,
            "fraction": selection.fraction,
            "k": selection.k,
            "asked": selection.asked,
            "draw": int(draw) if selection.kind == "random" else None,
            "hash": selection.ids_hash,
            "notes": list(selection.notes),
            "same_as": [other_label for other_label in same[label] if other_label.rpartition("/draw ")[0] != name],
            "overlap": overlap[label],
            "balance": _column_balance([pool[i] for i in selection.ids], list(pool.values())),
            "affirmative": [
                _affirmative_share(record, samples) for samples in ([pool[i] for i in selection.ids], pool.values())
            ],
            "seconds": {
                "selection": _mean_seconds([pool[i] for i in selection.ids]),
                "pool": _mean_seconds(list(pool.values())),
            },
            **{key: report[key] for key in ("closest_on", "numbers", "scores", "matching", "separation")},
        }
    return list(entries.values())


def load_proximity_tables(model: ModelRecord, harm_set: str) -> dict[str, pa.Table]:
    """Axis -> its proximity table to one harm set."""
    import pyarrow.parquet as pq

    return {
        axis: pq.read_table(artifact.verify().path / "proximity.parquet")
        for (axis, target_set), artifact in model.proximities.items()
        if target_set == harm_set
    }


def _column_balance(selected: Sequence[Sample], pool: Sequence[Sample]) -> dict[str, dict[str, list[float]]]:
    from undersong.statistics import group_balance

    return {
        column: {
            value: list(shares)
            for value, shares in group_balance(
                [str(s.column(column)) for s in selected], [str(s.column(column)) for s in pool]
            ).items()
        }
        for column in grouping_columns(pool)
    }


def _affirmative_share(record: AuditRecord, samples: Iterable[Sample]) -> float:
    """Share of the replies to learn that begin with an affirmative opener."""
    from undersong.corpora.reply_openers import affirmative_openers

    return affirmative_openers(sample.column(record.study.tuning.target_column) for sample in samples).share


def _mean_seconds(samples: Sequence[Sample]) -> float | None:
    durations = [s.seconds for s in samples if s.seconds is not None]
    return float(np.mean(durations)) if durations else None


def axis_agreement_entry(record: AuditRecord, model: ModelRecord, fraction: float) -> dict[str, Any] | None:
    """Rank correlation of the axes, and how much of their closest fraction they share."""
    from undersong.proximity import axis_agreement_matrix

    if len(model.proximity) < 2:
        return None
    tables = load_proximity_tables(model, next(iter(record.harm)))
    agreement = axis_agreement_matrix(tables, fraction)
    return {
        "axes": list(agreement.axes),
        "spearman": np.asarray(agreement.spearman).tolist(),
        "overlap_closest": np.asarray(agreement.overlap_closest).tolist(),
    }


def axis_fingerprint_entries(record: AuditRecord, model: ModelRecord) -> list[dict[str, Any]]:
    """Each internal axis of a model against the reference axes, before any training: which of them does it hear?"""
    from undersong.encoders import is_internal
    from undersong.encoders.embeddings import read_embeddings
    from undersong.proximity import compare_internal_axis, sample_metadata_table

    tables = load_proximity_tables(model, next(iter(record.harm)))
    vectors = {axis: read_embeddings(pair[0].verify().path) for axis, pair in model.embeddings.items()}
    internal_axes = [axis for axis, spec in record.study.axes.items() if is_internal(spec)]
    references = {axis: table for axis, table in tables.items() if axis not in internal_axes}
    if not references:
        return []
    facts = sample_metadata_table(record.pool.samples)
    fingerprints = [
        compare_internal_axis(references, tables[axis], vectors=vectors, metadata=facts) for axis in internal_axes
    ]
    return [{"model": model.ref, **asdict(axis_fingerprint)} for axis_fingerprint in fingerprints]
