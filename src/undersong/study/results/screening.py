"""Screening entries of results.json: proximity on each axis, selections, and agreement of axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.results.schema_base import Quartiles, ValueWithInterval
from undersong.results.schema_screening import (
    AxisAgreementRecord,
    AxisFingerprintRecord,
    AxisPair,
    AxisScreening,
    CorpusOverlap,
    CutTieRecord,
    DistanceHistogram,
    Diversity,
    LabelBalance,
    LabelMedian,
    MatchingEffect,
    NeighborPair,
    NumericBalance,
    QuarantinedItem,
    ResidualImbalanceRecord,
    SelectionAndPool,
    SelectionRecord,
    TargetReplies,
    TiedShares,
)
from undersong.stages.context import Corpus
from undersong.store.parquet import read_parquet
from undersong.study.arm_selection import arm_rules
from undersong.study.results.records import AuditRecord, ModelRecord
from undersong.types import Sample

if TYPE_CHECKING:
    import pyarrow as pa

    from undersong.proximity.axis_agreement import AxisPairAgreement

CLOSEST, DISTANT, BINS = 10, 5, 24


def target_replies(record: AuditRecord) -> TargetReplies:
    """Count how the replies begin that the pool teaches."""
    from undersong.corpora.reply_openers import affirmative_openers

    column = record.study.tuning.target_column
    openers = affirmative_openers(sample.column(column) for sample in record.pool.samples)
    return TargetReplies(
        column=column,
        n=openers.n,
        affirmative_share=openers.share,
        commonest_opener=openers.most_common or None,
    )


def corpus_overlaps(record: AuditRecord) -> list[CorpusOverlap]:
    """The overlaps of corpora that the checks found."""
    return [CorpusOverlap(corpus_a=a, corpus_b=b, kind=kind, pairs=pairs) for a, b, kind, pairs in record.overlap]


def screening_records(record: AuditRecord, model: ModelRecord) -> list[AxisScreening]:
    """Describe the pool's distances: one record an axis and harm set."""
    return [_axis_screening(record, model, axis, name) for axis, name in model.proximities]


def _axis_screening(record: AuditRecord, model: ModelRecord, axis: str, harm_set: str) -> AxisScreening:

    from undersong.encoders.embeddings import read_embeddings
    from undersong.proximity.table import ranking_metadata, ranking_scores

    table = read_parquet(model.proximities[axis, harm_set].path / "proximity.parquet")
    pool_embeddings = read_embeddings(model.embeddings[axis][0].path)
    facts = ranking_metadata(table)
    values = ranking_scores(table).astype(np.float64)
    counts, edges = np.histogram(values, bins=BINS)
    rows = sorted(table.to_pylist(), key=lambda row: row["rank"])
    by_id, harm_by_id = _samples_by_id(record.pool), _samples_by_id(record.harm[harm_set])
    quarantined = [
        *corpus_quarantine(record.pool),
        *({"id": q.id, "reason": q.reason} for q in pool_embeddings.quarantined),
    ]
    return AxisScreening(
        axis=axis,
        harm_set=harm_set,
        encoder=record.study.axes[axis],
        model=model.ref,
        score=facts["score"],
        centered=facts["centered"],
        metric=facts.get("metric", "cosine"),
        n_pool=len(rows),
        n_harm=len(record.harm[harm_set].samples),
        quarantined=[QuarantinedItem(id=item["id"], reason=item["reason"]) for item in quarantined],
        distances=_quartiles(values),
        histogram=DistanceHistogram(edges=edges.tolist(), counts=counts.tolist()),
        by_label=_medians_by_label(dict(zip(table.column("id").to_pylist(), values.tolist())), by_id),
        closest=[_neighbor_pair(row, by_id, harm_by_id) for row in rows[:CLOSEST]],
        distant=[_neighbor_pair(row, by_id, harm_by_id) for row in rows[-DISTANT:]],
    )


def _quartiles(values: np.ndarray) -> Quartiles:
    low, q25, median, q75, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return Quartiles(min=low, q25=q25, median=median, q75=q75, max=high)


def corpus_quarantine(corpus: Corpus) -> list[dict[str, str]]:
    """Return the items that a corpus left out, with reasons."""
    return read_parquet(corpus.artifact.path / "quarantine.parquet").to_pylist()


def _samples_by_id(corpus: Corpus) -> dict[str, Sample]:
    return {sample.id: sample for sample in corpus.samples}


def _neighbor_pair(row: Mapping[str, Any], pool: Mapping[str, Sample], harm: Mapping[str, Sample]) -> NeighborPair:
    sample = pool[row["id"]]
    nearest = None if row["nearest_id"] is None else harm[row["nearest_id"]]  # None: all are equally near
    return NeighborPair(
        id=row["id"],
        rank=row["rank"],
        text=sample.text,
        speaker=sample.speaker,
        distance=row["distance"],
        distance_centered=row["distance_centered"],
        nearest_id=row["nearest_id"],
        nearest_text=None if nearest is None else nearest.text,
        second_distance=row["second_distance"],
    )


def grouping_columns(samples: Sequence[Sample], max_values: int = 24) -> list[str]:
    """Manifest columns that group samples: the speaker, and labels with few values."""
    names = ["speaker", *dict.fromkeys(name for sample in samples for name, _ in sample.labels)]
    return [name for name in names if 1 < len({s.column(name) for s in samples}) <= max_values]


def _medians_by_label(distances: Mapping[str, float], pool: Mapping[str, Sample]) -> dict[str, dict[str, LabelMedian]]:
    medians: dict[str, dict[str, LabelMedian]] = {}
    for column in grouping_columns(list(pool.values())):
        groups: dict[str, list[float]] = {}
        for name, distance in distances.items():
            groups.setdefault(str(pool[name].column(column)), []).append(distance)
        medians[column] = {
            value: LabelMedian(n=len(d), median=float(np.median(d))) for value, d in sorted(groups.items())
        }
    return medians


def selection_records(record: AuditRecord, model: ModelRecord) -> list[SelectionRecord]:
    """Describe every selection: its hash, who shares it, its overlap with the others, its balance against the pool."""
    from undersong.proximity.selection_report import cut_tie, describe_selection, equal_selections, selection_overlaps
    from undersong.proximity.strata import sample_metadata_table

    selections, harm_set_by_rule = model.selections, {rule.label: rule.harm_set for rule in arm_rules(record.study)}
    overlap, same = selection_overlaps(selections), equal_selections(selections)
    pool, facts = _samples_by_id(record.pool), sample_metadata_table(record.pool.samples)
    samples = list(pool.values())
    records: dict[str, SelectionRecord] = {}
    for label, selection in selections.items():
        name, _, draw = label.rpartition("/draw ")
        if name in records and selection.kind != "random":
            continue  # only random draws anything: else the same selection under every draw
        axis, kind = name.split("/")[:2]
        tables = load_proximity_tables(model, harm_set_by_rule[name])
        report, tie = describe_selection({label: selection}, tables, facts)[label], cut_tie(selection, tables[axis])
        selected = [pool[id] for id in selection.ids]
        records[name if selection.kind != "random" else label] = SelectionRecord(
            model=model.ref,
            axis=axis,
            harm_set=harm_set_by_rule[name],
            kind=kind,
            rule=selection.rule or None,
            fraction=selection.fraction,
            k=selection.k,
            requested=selection.asked,
            draw=int(draw) if selection.kind == "random" else None,
            selection_hash=selection.ids_hash,
            notes=list(selection.notes),
            same_as=[other_label for other_label in same[label] if other_label.rpartition("/draw ")[0] != name],
            jaccard=overlap[label],
            jaccard_with_closest=report["closest_on"],
            balance=_label_balances(selected, samples),
            numeric_balance={column: _numeric_balance(entry) for column, entry in report["numbers"].items()},
            diversity=SelectionAndPool[Diversity](selection=_diversity(selected), pool=_diversity(samples)),
            cut_tie=None if tie is None else CutTieRecord(score=tie.score, tied=tie.tied, selected=tie.selected),
            affirmative_share=SelectionAndPool[float](
                selection=_affirmative_share(record, selected), pool=_affirmative_share(record, samples)
            ),
            mean_seconds=SelectionAndPool[float | None](selection=_mean_seconds(selected), pool=_mean_seconds(samples)),
            scores=SelectionAndPool[Quartiles](
                selection=Quartiles(**report["scores"]["kept"]), pool=Quartiles(**report["scores"]["pool"])
            ),
            matching=None
            if report["matching"] is None
            else {column: MatchingEffect(**effect) for column, effect in report["matching"].items()},
            residual_imbalance=None if report["separation"] is None else _residual_imbalance(report["separation"]),
        )
    return list(records.values())


def _diversity(samples: Sequence[Sample]) -> Diversity:
    """Count distinct values; samples that have none do not count."""

    def count(column: str) -> int | None:
        return len({value for sample in samples if (value := sample.column(column)) is not None}) or None

    return Diversity(texts=count("text"), groups=count("group"), voices=count("speaker"))


def _numeric_balance(entry: Mapping[str, Any]) -> NumericBalance:
    return NumericBalance(
        selection=entry["selection"],
        pool=entry["pool"],
        standardized_difference=entry["standardized_difference"],
        n=entry["known"],
    )


def _residual_imbalance(entry: Mapping[str, Any]) -> ResidualImbalanceRecord:
    return ResidualImbalanceRecord(
        other_axis=entry["other"],
        strata=entry["strata"],
        single_item_strata=entry["singles"],
        measured_items=entry["measured"],
        jaccard=entry["jaccard"],
        jaccard_unstratified=entry["jaccard_plain"],
        jaccard_chance=entry["jaccard_chance"],
        shift=entry["shift"],
        shift_unstratified=entry["shift_plain"],
        spearman=entry["spearman"],
        spearman_within=entry["spearman_within"],
        distant=entry["distant"],
    )


def load_proximity_tables(model: ModelRecord, harm_set: str) -> dict[str, pa.Table]:
    """Axis -> its proximity table to one harm set."""
    return {
        axis: read_parquet(artifact.path / "proximity.parquet")
        for (axis, target_set), artifact in model.proximities.items()
        if target_set == harm_set
    }


def _label_balances(selected: Sequence[Sample], pool: Sequence[Sample]) -> dict[str, dict[str, LabelBalance]]:
    from undersong.statistics.balance import group_balance

    return {
        column: {
            value: LabelBalance(**balance._asdict())
            for value, balance in group_balance(
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


def axis_agreement_record(record: AuditRecord, model: ModelRecord, fraction: float) -> AxisAgreementRecord | None:
    """Compute the rank correlation of the axes, and how much of their closest fraction they share."""
    from undersong.proximity.axis_agreement import axis_agreement_matrix

    if len(model.proximity) < 2:
        return None
    tables = load_proximity_tables(model, next(iter(record.harm)))
    agreement = axis_agreement_matrix(tables, fraction)
    return AxisAgreementRecord(
        axes=list(agreement.axes),
        spearman=np.asarray(agreement.spearman).tolist(),
        overlap_closest=np.asarray(agreement.overlap_closest).tolist(),
    )


def axis_fingerprint_records(record: AuditRecord, model: ModelRecord) -> list[AxisFingerprintRecord]:
    """Compare each internal axis of a model with the reference axes, before any training."""
    from undersong.encoders.embeddings import read_embeddings
    from undersong.encoders.registry import is_internal, needs_model
    from undersong.proximity.axis_agreement import compare_internal_axis
    from undersong.proximity.strata import sample_metadata_table

    tables = load_proximity_tables(model, next(iter(record.harm)))
    vectors = {axis: read_embeddings(pair[0].path) for axis, pair in model.embeddings.items()}
    internal_axes = [axis for axis, spec in record.study.axes.items() if is_internal(spec)]
    references = {axis: table for axis, table in tables.items() if not needs_model(record.study.axes[axis])}
    if not references:
        return []
    facts = sample_metadata_table(record.pool.samples)
    fingerprints = [
        compare_internal_axis(references, tables[axis], vectors=vectors, metadata=facts) for axis in internal_axes
    ]
    return [
        AxisFingerprintRecord(
            model=model.ref,
            internal_axis=fingerprint.internal,
            pairs=[_axis_pair(pair) for pair in fingerprint.pairs],
            lead_share=fingerprint.leads,
            dominant_axis=fingerprint.hears,
        )
        for fingerprint in fingerprints
    ]


def _axis_pair(pair: AxisPairAgreement) -> AxisPair:
    interval = ValueWithInterval.from_interval
    return AxisPair(
        axis_a=pair.a,
        axis_b=pair.b,
        n=pair.n,
        clusters=pair.clusters,
        spearman=interval(pair.spearman),
        overlap=interval(pair.overlap),
        chance=pair.chance,
        tied=TiedShares(axis_a=pair.tied[0], axis_b=pair.tied[1]),
        cka=None if pair.cka is None else interval(pair.cka),
        cka_biased=pair.cka_plain,
    )
