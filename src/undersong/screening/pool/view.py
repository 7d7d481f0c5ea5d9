"""What the page of a screening shows: the pool by rank, the harm set that it is ranked by, and distances of both."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from undersong.pages.data_view import DATA, HARM, ORDINARY, DataView, ViewItem, choose_harm, choose_shown
from undersong.screening.pool.inputs import CorpusInput, ScreeningCorpora
from undersong.screening.pool.options import PRECOMPUTED, ScreeningOptions
from undersong.screening.pool.output import ScreeningResult
from undersong.screening.pool.separation import page_summary
from undersong.types import Embeddings, Sample

MIN_ORDINARY = 100  # benign samples from which the nearest hundredth is marked
ORDINARY_SHARE = 0.01


def build_screening_view(
    corpora: ScreeningCorpora,
    sides: Sequence[Embeddings],
    result: ScreeningResult,
    options: ScreeningOptions,
    limit: int,
) -> DataView:
    """Put together what is shown of a screening, on the axis and the harm set that it selects by.

    Args:
        corpora: The corpora.
        sides: Embeddings of each corpus on this axis.
        result: The result.
        options: Options of the screening.
        limit: Largest number of samples to show.
    """
    from undersong.encoders.sparse_vectors import stack_rows
    from undersong.proximity.table import filter_harm_set, ranking_scores

    axis, harm_name = result.report["selected_by"]["axis"], result.report["selected_by"]["harm_set"]
    table = filter_harm_set(result.tables[axis], harm_name).sort_by("rank")
    ids, scores = table.column("id").to_pylist(), ranking_scores(table).astype(np.float64)
    shown = choose_shown(len(ids), limit, options.seed)
    harm_input, harm = corpora.harm[harm_name], sides[1 + list(corpora.harm).index(harm_name)]
    places = {id: i for i, id in enumerate(harm.ids)} | {None: -1}
    nearest_ids = table.column("nearest_id").to_pylist()
    nearest = np.array([places[nearest_ids[i]] for i in shown.tolist()], np.int64)
    shown_harm, nearest = choose_harm(nearest, len(harm.ids), options.seed)
    rows = {id: row for row, id in enumerate(sides[0].ids)}
    pool_vectors = sides[0].vectors[[rows[ids[i]] for i in shown.tolist()]]
    series = _histogram_series(corpora, sides, harm, harm_input, result, options)
    threshold = None
    if len(series.get(ORDINARY, ())) >= MIN_ORDINARY:
        threshold = float(np.quantile(series[ORDINARY], ORDINARY_SHARE))
    nearer = scores[shown] <= threshold if threshold is not None else np.zeros(len(shown), bool)
    headline, summary = page_summary(result.report)
    return DataView(
        data=corpora.pool.ref,
        verb="screen",
        axis=(axis, result.report["axes"][axis]),
        samples=_items(corpora.pool, [ids[i] for i in shown.tolist()]),
        ranks=table.column("rank").to_numpy()[shown],
        distances=scores[shown],
        nearer=nearer,
        harm=_items(harm_input, [harm.ids[i] for i in shown_harm.tolist()]),
        nearest=nearest,
        vectors=stack_rows([pool_vectors, harm.vectors[shown_harm]]),
        total=len(ids),
        histogram={DATA: scores, **series},
        threshold=threshold,
        verdict=headline,
        sentence=f"{len(ids):,} samples of {corpora.pool.ref}, ranked by their distance to {harm_input.ref}. {summary}",
        notes=("Nearness is a ranking and not proof of harm.",),
        drop_command=_drop_command(corpora.pool.ref, {name: item.ref for name, item in corpora.harm.items()}),
        seed=options.seed,
    )


def _drop_command(pool: str, harm: Mapping[str, str]) -> str:
    named = [ref if name == Path(ref).stem else f"{name}={ref}" for name, ref in harm.items()]
    words = ["undersong", "screen", pool, *(word for ref in named for word in ("--harm", ref))]
    return f"{shlex.join(words)} --out OUT --drop undersong-marks.txt"


def _histogram_series(
    corpora: ScreeningCorpora,
    sides: Sequence[Embeddings],
    harm: Embeddings,
    harm_input: CorpusInput,
    result: ScreeningResult,
    options: ScreeningOptions,
) -> dict[str, np.ndarray]:
    """Distances of benign speech and within the harm set, as far as they are on the scale of the pool's."""
    from undersong.predictors.registry import axis_measure
    from undersong.proximity.neighbors import distances_to_others
    from undersong.proximity.table import proximity_table, ranking_scores

    axis = result.report["selected_by"]["axis"]
    encoder = result.report["axes"][axis]
    measure = {} if encoder == PRECOMPUTED else axis_measure(encoder)
    series: dict[str, np.ndarray] = {}
    if options.center or measure:
        return series
    if corpora.benign is not None:
        table = proximity_table(
            axis, "harm", sides[-1], harm, score=options.score, max_quarantined=options.max_quarantined
        )
        series[ORDINARY] = ranking_scores(table).astype(np.float64)
    if options.score == "nearest":
        clusters = {sample.id: sample.cluster for sample in harm_input.samples}
        series[HARM] = distances_to_others(harm.vectors, [clusters.get(id, id) for id in harm.ids])
    return series


def _items(corpus_input: CorpusInput, ids: Sequence[str]) -> list[ViewItem]:
    by_id = {sample.id: sample for sample in corpus_input.samples}
    return [_item(id, by_id.get(id)) for id in ids]


def _item(id: str, sample: Sample | None) -> ViewItem:
    """An item; embeddings have an id alone."""
    if sample is None:
        return ViewItem(id)
    source = next((value for name in ("source", "dataset") if (value := sample.column(name)) is not None), None)
    return ViewItem(id, sample.text or "", source, sample.speaker, sample.audio)
