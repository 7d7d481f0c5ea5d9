"""Findings of a screening for `screening.json`: distances, axis agreement, near-duplicates, screening scores, and the
effect of padding on the ranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.screening.pool.inputs import CorpusInput, ScreeningCorpora
from undersong.screening.pool.options import PRECOMPUTED, ScreeningOptions, match_selection_ids, name_or_first
from undersong.screening.pool.output import ScreeningFindings
from undersong.screening.pool.separation import check_select_axis, measure_separation
from undersong.types import Embeddings, Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

    from undersong.proximity.rules import SelectionRule
    from undersong.proximity.selection import Selection


LARGE_POOL = 50_000  # items from which fewer bootstrap draws are used
MAX_LISTED_PAIRS = 50  # near-duplicates that are listed; all are counted
MAX_LISTED_CLOSEST = 10  # closest items listed per axis and harm set
EmbeddingsByAxis = Mapping[str, Sequence[Embeddings]]  # axis -> embeddings of each corpus


def screening_findings(
    corpora: ScreeningCorpora,
    axes: Mapping[str, str],
    embeddings: EmbeddingsByAxis,
    rules: Mapping[str, tuple[SelectionRule, int]],
    options: ScreeningOptions,
    cached: Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]],
    harm_samples: Mapping[str, Mapping[str, Embeddings]],
) -> ScreeningFindings:
    """Compute the proximity tables of every axis to all harm sets, the selections on one axis and set, and the report.

    The report (`screening.json`) has these keys:

    - `axes` (name -> encoder) and `selected_by`;
    - `distances` and `closest` of every axis and harm set;
    - `separation` of every axis and harm set: does the axis tell harm from ordinary data;
    - `agreement` of every two axes, and `fingerprint` of each internal axis;
    - `selection`, by rule, if there is one;
    - `screening_score` of every axis and harm set, if there is benign speech;
    - `near_duplicates` of pool and harm sets, by text and audio.

    All but `distances`, `closest` and the scores are about the selected harm set. Intervals are over whole groups if
    the manifest has them, with 1000 draws, or 100 from 50,000 items on.

    Args:
        corpora: The corpora.
        axes: Encoder of each axis.
        embeddings: Embeddings of each corpus, by axis.
        rules: Selection rule and seed of each label.
        options: Options of the screening.
        cached: Returns the result of its function, from the store if known under its name: agreement takes longest,
            and neither it nor separation depends on the rules.
        harm_samples: Vectors of each harm set as samples, by axis, of axes that run the model.

    Raises:
        UndersongError: A rule would keep by an axis that nobody named and that tells nothing of harm.
    """
    from undersong.predictors.registry import axis_measure
    from undersong.proximity.selection import select_by_rule
    from undersong.proximity.selection_report import cut_tie
    from undersong.proximity.strata import sample_metadata_table
    from undersong.proximity.table import filter_harm_set

    pool_embeddings = {axis: axis_embeddings[0] for axis, axis_embeddings in embeddings.items()}
    measures = {axis: {} if encoder == PRECOMPUTED else axis_measure(encoder) for axis, encoder in axes.items()}
    all_tables = {
        axis: _proximity_tables(axis, pool_embeddings[axis], axis_embeddings, corpora, options, measures[axis])
        for axis, axis_embeddings in embeddings.items()
    }
    select_axis, select_harm_set = (
        name_or_first("axis", options.select_axis, axes),
        name_or_first("harm set", options.select_harm_set, corpora.harm),
    )
    separation = cached(
        "separation", lambda: {"separation": measure_separation(corpora, axes, embeddings, harm_samples, options)}
    )
    if options.select_axis is None and any(rule.kind != "random" for rule, _ in rules.values()):
        check_select_axis(separation["separation"], select_axis, select_harm_set)
    tables = {axis: filter_harm_set(table, select_harm_set) for axis, table in all_tables.items()}
    facts = sample_metadata_table(corpora.pool.samples) if corpora.pool.samples else None
    other_tables = {axis: table for axis, table in tables.items() if axis != select_axis}
    match_ids = None if options.match_selection is None else match_selection_ids(options)
    matching_labels = [label for label, (rule, _) in rules.items() if rule.matched] or [
        *rules
    ]  # who takes the shares of `match_selection`
    selections = {
        label: select_by_rule(
            tables[select_axis],
            rule,
            seed,
            metadata=facts,
            other_tables=other_tables,
            match_ids=match_ids if label in matching_labels else None,
        )
        for label, (rule, seed) in rules.items()
    }

    draws = 1000 if len(tables[select_axis]) < LARGE_POOL else 100
    report: dict[str, Any] = {"axes": dict(axes), "selected_by": {"axis": select_axis, "harm_set": select_harm_set}}
    report |= {"distances": _distances(all_tables), "closest": _closest(all_tables, corpora), **separation}
    if selections and (tie := cut_tie(next(iter(selections.values())), tables[select_axis])):
        report["ties"] = tie.sentence
    report |= cached("agreement", lambda: _agreement(axes, tables, pool_embeddings, facts, draws))
    if facts is not None:
        if selections:
            report["selection"] = _selection_report(selections, tables, facts)
        report["near_duplicates"] = near_duplicates(corpora)
    if corpora.benign is not None:
        benign_tables = {
            axis: _proximity_tables(axis, axis_embeddings[-1], axis_embeddings, corpora, options, measures[axis])
            for axis, axis_embeddings in embeddings.items()
        }
        report["screening_scores"] = _screening_scores(all_tables, benign_tables, corpora, facts, draws)
    return ScreeningFindings(all_tables, selections, report, corpora.harm[select_harm_set].texts)


def _proximity_tables(
    axis: str,
    pool: Embeddings,
    axis_embeddings: Sequence[Embeddings],
    corpora: ScreeningCorpora,
    options: ScreeningOptions,
    measure: Mapping[str, Any],
) -> pa.Table:
    from undersong.proximity.table import proximity_tables

    harm = dict(zip(corpora.harm, axis_embeddings[1:]))
    settings = {"score": options.score, "center": options.center, "max_quarantined": options.max_quarantined}
    return proximity_tables(axis, pool, harm, **{**settings, **measure})


def _distances(all_tables: Mapping[str, pa.Table]) -> list[dict[str, Any]]:
    """Quantiles of the pool's distances by axis and harm set, in the score of the ranking."""
    from undersong.proximity.table import ranking_metadata, ranking_scores

    entries = []
    for axis, name, table in _tables_by_harm_set(all_tables):
        quartiles = np.quantile(ranking_scores(table).astype(np.float64), [0, 0.25, 0.5, 0.75, 1]).tolist()
        quantiles = dict(zip(("min", "q25", "median", "q75", "max"), quartiles))
        facts = ranking_metadata(table)
        entry = {
            "axis": axis,
            "harm_set": name,
            "n": len(table),
            "score": facts["score"],
            "centered": facts["centered"],
        }
        entries.append({**entry, **quantiles})
    return entries


def _closest(all_tables: Mapping[str, pa.Table], corpora: ScreeningCorpora) -> list[dict[str, Any]]:
    """First items of every ranking, with the nearest harmful item of each."""
    import pyarrow.compute as pc

    from undersong.proximity.table import nearest_margin, ranking_metadata, ranking_scores

    texts, entries = corpora.pool.texts, []
    for axis, name, table in _tables_by_harm_set(all_tables):
        table = table.append_column("score", [ranking_scores(table)])
        if ranking_metadata(table)["score"] == "nearest":
            table = table.append_column("margin", [nearest_margin(table)])
        closest_rows = table.filter(pc.less_equal(table.column("rank"), MAX_LISTED_CLOSEST)).sort_by("rank").to_pylist()
        for row in closest_rows:
            row_margin = row.get("margin")
            entries.append(
                {
                    "axis": axis,
                    "harm_set": name,
                    "rank": row["rank"],
                    "id": row["id"],
                    "text": texts.get(row["id"]),
                    "score": row["score"],
                    "nearest_id": row["nearest_id"],
                    "nearest_text": corpora.harm[name].texts.get(row["nearest_id"]),
                    "margin": row_margin if row_margin is not None and np.isfinite(row_margin) else None,
                }
            )
    return entries


def _tables_by_harm_set(all_tables: Mapping[str, pa.Table]) -> list[tuple[str, str, pa.Table]]:
    from undersong.proximity.table import filter_harm_set, harm_set_names

    return [
        (axis, name, filter_harm_set(table, name))
        for axis, table in all_tables.items()
        for name in harm_set_names(table)
    ]


def _agreement(
    axes: Mapping[str, str],
    tables: Mapping[str, pa.Table],
    embeddings: Mapping[str, Embeddings],
    facts: pa.Table | None,
    draws: int,
) -> dict[str, Any]:
    """`agreement` and `fingerprint`, as far as there are axes and items for them."""
    from undersong.encoders.registry import is_internal, needs_model
    from undersong.proximity.axis_agreement import compare_internal_axis, pairwise_axis_agreement

    results: dict[str, Any] = {}
    items = len(next(iter(tables.values())))
    if len(tables) > 1 and items > 3:
        pairs = pairwise_axis_agreement(tables, vectors=embeddings, metadata=facts, draws=draws)
        results["axis_agreement"] = [asdict(pair) for pair in pairs]
    internal_axes = [axis for axis in tables if is_internal(axes[axis])]
    references = {
        axis: table for axis, table in tables.items() if axes[axis] == PRECOMPUTED or not needs_model(axes[axis])
    }
    if references and items > 3:
        fingerprints = [
            compare_internal_axis(references, tables[axis], vectors=embeddings, metadata=facts, draws=draws)
            for axis in internal_axes
        ]
        results["axis_fingerprints"] = [asdict(axis_fingerprint) for axis_fingerprint in fingerprints]
    return results


def _selection_report(
    selections: Mapping[str, Selection], tables: Mapping[str, pa.Table], facts: pa.Table
) -> dict[str, Any]:
    from dataclasses import replace

    from undersong.proximity.selection_report import describe_selection

    # `tables` have only the selected harm set, so there is none to choose.
    return describe_selection(
        {label: replace(selection, harm_set="") for label, selection in selections.items()}, tables, facts
    )


def _screening_scores(
    all_tables: Mapping[str, pa.Table],
    benign_tables: Mapping[str, pa.Table],
    corpora: ScreeningCorpora,
    facts: pa.Table | None,
    draws: int,
) -> list[dict[str, Any]]:
    from undersong.proximity.screening_score import compute_screening_score
    from undersong.proximity.strata import sample_metadata_table
    from undersong.proximity.table import filter_harm_set

    benign_facts = (
        sample_metadata_table(corpora.benign.samples) if corpora.benign is not None and corpora.benign.samples else None
    )
    return [
        asdict(
            compute_screening_score(
                table,
                filter_harm_set(benign_tables[axis], name),
                metadata=facts,
                benign_metadata=benign_facts,
                draws=draws,
            )
        )
        for axis, name, table in _tables_by_harm_set(all_tables)
    ]


def near_duplicates(corpora: ScreeningCorpora) -> dict[str, Any]:
    """Pairs of pool and harm items with nearly the same text or audio: the number of each kind, and the first pairs.

    `unchecked` counts items of pool and harm sets with neither a text nor an audio fingerprint (audio is not decoded if
    no axis needs it).
    """
    from undersong.corpora.near_duplicates import count_duplicates, find_duplicates

    shared_pairs = []
    for name, harm_input in corpora.harm.items():
        harm_name = name if name != "pool" else "harm set pool"
        pool_and_harm = {"pool": corpora.pool, harm_name: harm_input}
        fingerprints = {set_name: corpus_input.fingerprints for set_name, corpus_input in pool_and_harm.items()}
        shared_pairs += find_duplicates(
            {set_name: corpus_input.samples for set_name, corpus_input in pool_and_harm.items()},
            fingerprints=fingerprints,
        )[0]
    kinds: dict[str, int] = {}
    for _, _, kind, pairs in count_duplicates(shared_pairs):
        kinds[kind] = kinds.get(kind, 0) + pairs
    unchecked = [_unchecked_count(corpora.pool), sum(map(_unchecked_count, corpora.harm.values()))]
    return {
        "kinds": kinds,
        "unchecked": unchecked,
        "pairs": len(shared_pairs),
        "first": [asdict(pair) for pair in shared_pairs[:MAX_LISTED_PAIRS]],
    }


def _unchecked_count(corpus_input: CorpusInput) -> int:
    return sum(
        not (sample.text or "").strip() and sample.id not in corpus_input.fingerprints
        for sample in corpus_input.samples
    )


MAX_CLIPS = 200  # clips per corpus; padded to 30 s, each costs about a second


def padding_checks(axes: Mapping[str, str], corpora: ScreeningCorpora, device: str) -> dict[str, dict[str, Any]]:
    """Rank correlation and overlap of the closest quarter, `pad=exact` against `pad=bucket`, by axis.

    Clips are taken evenly over the pool, 200 at most. Only speech encoders of the Whisper class have padding to skip.

    Raises:
        UndersongError: No axis has such an encoder.
    """
    from undersong.encoders.padding_check import check_padding
    from undersong.encoders.registry import make_encoder

    pool, harm = corpora.pool.samples, [sample for harm_input in corpora.harm.values() for sample in harm_input.samples]
    checks = {}
    for axis, spec in padded_axes(axes).items():
        base_spec = ",".join(part for part in spec.split(",") if not part.startswith("pad="))
        encoders = [make_encoder(f"{base_spec},pad={pad}", fit=(), device=device) for pad in ("exact", "bucket")]
        checks[axis] = asdict(check_padding(encoders[0], encoders[1], _evenly_spaced(pool), _evenly_spaced(harm)))
    return checks


def padded_axes(axes: Mapping[str, str]) -> dict[str, str]:
    """Axes whose encoder pads; reads no weights.

    Raises:
        UndersongError: There is no such axis.
    """
    from undersong.encoders.spec import parse_encoder
    from undersong.encoders.speech import has_padding

    def is_padded(spec: str) -> bool:
        return spec != PRECOMPUTED and parse_encoder(spec).kind == "speech" and has_padding(parse_encoder(spec).ref)

    if not (padded_specs := {axis: spec for axis, spec in axes.items() if is_padded(spec)}):
        raise UndersongError("No axis has padding to check; add a speech encoder of the Whisper class.")
    return padded_specs


def _evenly_spaced(samples: Sequence[Sample]) -> list[Sample]:
    if len(samples) <= MAX_CLIPS:
        return list(samples)
    return [samples[i * len(samples) // MAX_CLIPS] for i in range(MAX_CLIPS)]
