"""What the page of a check shows: samples with their nearest harmful requests, and distances of all three sets."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from undersong.corpora.training_audio import training_clips
from undersong.corpora.training_file import TrainingFile, open_training_file
from undersong.encoders.sparse_vectors import stack_rows
from undersong.encoders.spec import parse_encoder
from undersong.pages.data_page import MAX_SHOWN, write_views
from undersong.pages.data_view import DATA, HARM, ORDINARY, DataView, ViewItem, choose_harm, choose_shown
from undersong.proximity.distances import nearest_distances
from undersong.proximity.neighbors import distances_to_others
from undersong.screening.check.axis_choice import is_sample_axis
from undersong.screening.check.inputs import CheckInputs
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.requests import RequestText, reference_requests
from undersong.screening.check.result import (
    CANNOT_TELL,
    EVIDENCE,
    MORE,
    NO_MORE,
    AxisCheck,
    CheckResult,
    RankedSample,
)
from undersong.screening.check.text_axes import axis_vectorizers
from undersong.types import Vectors

HEADLINES = {
    MORE: "More of your data is close to harm than of ordinary data",
    NO_MORE: "No more of your data is close to harm than of ordinary data",
    CANNOT_TELL: "This check cannot tell whether more of your data is close to harm than of ordinary data",
}


def write_check_views(request: CheckRequest, result: CheckResult) -> tuple[str, ...]:
    """Write the page and the explorer's table that a request asks for; one sentence about each.

    Raises:
        UndersongError: A file cannot be written, or nothing is ranked for an explorer.
    """
    return write_views(build_check_view(request, result, MAX_SHOWN), request.page, request.explore)


def build_check_view(request: CheckRequest, result: CheckResult, limit: int) -> DataView:
    """Put together what is shown of a check.

    Args:
        request: The request.
        result: Its result.
        limit: Largest number of samples to show.
    """
    common: dict[str, Any] = {
        "verdict": HEADLINES[result.verdict],
        "sentence": result.sentence,
        "notes": (*result.notes, EVIDENCE),
        "drop_command": f"undersong check {shlex.quote(result.data)} --fix OUT --drop undersong-marks.txt",
        "seed": request.seed,
    }
    if not result.ranked:
        nothing, none = np.zeros(0), np.zeros(0, np.int64)
        return DataView(
            result.data, "check", ("", ""), (), none, nothing, none, (), none, None, 0, {}, None, **common,
        )  # fmt: skip
    axis = next(axis for axis in result.axes if axis.name == result.ranked_by)
    ranked = [result.ranked[i] for i in choose_shown(len(result.ranked), limit, request.seed)]
    measure = _measure_samples if is_sample_axis(parse_encoder(axis.encoder)) else _measure_texts
    axis_view = measure(request, axis, ranked)
    common["notes"] = (*result.notes, *filter(None, [axis_view.note]), EVIDENCE)
    places = {(item.id, item.text): i for i, item in reversed(list(enumerate(axis_view.harm)))}
    nearest = np.array([places.get((sample.nearest_id or "", sample.nearest_text or ""), -1) for sample in ranked])
    shown_harm, nearest = choose_harm(nearest, len(axis_view.harm), request.seed)
    return DataView(
        data=result.data,
        verb="check",
        axis=(axis.name, axis.encoder),
        samples=_samples(request, [(sample.id, sample.row, sample.text) for sample in ranked]),
        ranks=np.array([sample.rank for sample in ranked]),
        distances=np.array([sample.distance for sample in ranked]),
        nearer=np.array([sample.nearer for sample in ranked]),
        harm=[axis_view.harm[i] for i in shown_harm.tolist()],
        nearest=nearest,
        vectors=stack_rows([axis_view.vectors, axis_view.harm_vectors[shown_harm]]),
        total=len(result.ranked),
        histogram={
            DATA: np.array([sample.distance for sample in result.ranked]),
            ORDINARY: axis_view.ordinary_distances,
            HARM: axis_view.harm_distances,
        },
        threshold=axis.threshold,
        **common,
    )


@dataclass(frozen=True)
class _AxisView:
    """What a page shows of the axis that ranks.

    Attributes:
        harm: The harmful requests, with their clips; m of them.
        vectors: Vectors of the shown samples, (n, d).
        harm_vectors: Vectors of the harmful requests, (m, d).
        ordinary_distances: Distances of the ordinary requests to harm.
        harm_distances: Distances of the harmful requests to other harm.
    """

    harm: Sequence[ViewItem]
    vectors: Vectors
    harm_vectors: Vectors
    ordinary_distances: np.ndarray
    harm_distances: np.ndarray
    note: str | None = None  # what the data were compared with, unless the result says so


def _measure_texts(request: CheckRequest, axis: AxisCheck, ranked: Sequence[RankedSample]) -> _AxisView:
    files = [open_training_file(ref) for ref in request.harm_refs]
    harm = [(file, item) for file in files for item in reference_requests(file)]
    requests = [item for _, item in harm]
    encoders = {name: encoder for name, encoder in (request.axes or {}).items() if name == axis.name}
    ordinary = reference_requests(open_training_file(str(request.ordinary)))
    vectorizers, measured = axis_vectorizers(requests, ordinary, encoders, request.seed)
    vectorize = vectorizers[axis.name][1]
    harm_vectors, ordinary_vectors = (vectorize([item.text for item in items]) for items in (requests, measured))
    return _AxisView(
        harm=_harm_items(harm),
        vectors=vectorize([sample.text for sample in ranked]),
        harm_vectors=harm_vectors,
        ordinary_distances=nearest_distances(ordinary_vectors, harm_vectors, k=1).distance,
        harm_distances=distances_to_others(harm_vectors, [item.cluster for item in requests]),
        note=f"Of {len(ordinary):,} ordinary requests, {len(ordinary) - len(measured):,} fitted the weights of words, "
        f"and your data is compared with the other {len(measured):,}.",
    )


def _measure_samples(request: CheckRequest, axis: AxisCheck, ranked: Sequence[RankedSample]) -> _AxisView:
    """The same of an axis of clips or of a model, whose vectors the store has."""
    from undersong.predictors.registry import axis_measure
    from undersong.screening.check.run import open_work_store, run_context, transcribed_data
    from undersong.screening.check.sample_axes import SampleAxes, cluster_names, distance_function

    inputs = CheckInputs(request)
    with open_work_store(request) as store:
        ctx, (data, _) = run_context(request, store), transcribed_data(inputs, store)
        sets = inputs.sets(ctx, data)
        vectors = SampleAxes.open(ctx, request, sets).vectors(axis.encoder)
    to_harm = distance_function(axis.encoder)
    file_rows = [data.samples[owner].row for owner in sets.data.owners]
    rows = {(file_rows[int(id)], sets.data.requests[int(id)].text): place for place, id in enumerate(vectors.data.ids)}
    anchors = np.asarray(vectors.anchors.vectors)
    harm = [(sets.harm.requests[int(id)], sets.harm.samples[int(id)]) for id in vectors.anchors.ids]
    return _AxisView(
        harm=[ViewItem(item.id, item.text, item.source, None, sample.audio) for item, sample in harm],
        vectors=np.asarray(vectors.data.vectors)[[rows[sample.row, sample.text] for sample in ranked]],
        harm_vectors=anchors,
        ordinary_distances=to_harm(np.asarray(vectors.ordinary.vectors), anchors)[0],
        harm_distances=to_harm(np.asarray(vectors.harm.vectors), anchors)[0]
        if axis_measure(axis.encoder)
        else distances_to_others(np.asarray(vectors.harm.vectors), cluster_names(sets.harm, vectors.harm)),
    )


def _samples(request: CheckRequest, ranked: list[tuple[str, int, str]]) -> list[ViewItem]:
    data = open_training_file(str(request.data), request.columns)
    by_row = {sample.row: sample for sample in data.samples}
    clips = training_clips(data, [row for _, row, _ in ranked], request.columns)
    return [ViewItem(id, text, by_row[row].source, by_row[row].speaker, clips.get(row)) for id, row, text in ranked]


def _harm_items(harm: list[tuple[TrainingFile, RequestText]]) -> list[ViewItem]:
    """The harmful requests with their clips; all requests of one row share its clip."""
    clips: dict[tuple[str, str], str | bytes] = {}
    for file in {id(file): file for file, _ in harm}.values():
        rows = {sample.row: sample.id for sample in file.samples}
        clips |= {(file.ref, rows[row]): clip for row, clip in training_clips(file, list(rows)).items()}
    return [ViewItem(item.id, item.text, item.source, None, clips.get((file.ref, item.id))) for file, item in harm]
