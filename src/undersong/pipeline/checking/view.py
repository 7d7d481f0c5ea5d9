"""What the page of a check shows: samples with their nearest harmful requests, and distances of all three sets."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np

from undersong.corpora.training_audio import training_clips
from undersong.corpora.training_file import TrainingFile, open_training_file
from undersong.encoders.sparse_vectors import stack_rows
from undersong.pipeline.checking.axes import axis_vectorizers
from undersong.pipeline.checking.options import CheckRequest
from undersong.pipeline.checking.requests import RequestText, reference_requests
from undersong.pipeline.checking.result import CANNOT_TELL, EVIDENCE, MORE, NO_MORE, CheckResult
from undersong.proximity import nearest_distances
from undersong.proximity.neighbors import distances_to_others
from undersong.report.data_page import MAX_SHOWN, write_views
from undersong.report.data_view import DATA, HARM, ORDINARY, DataView, ViewItem, choose_harm, choose_shown

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
    files = [open_training_file(ref) for ref in request.harm_refs]
    harm = [(file, item) for file in files for item in reference_requests(file)]
    requests = [item for _, item in harm]
    encoders = {name: encoder for name, encoder in (request.axes or {}).items() if name == axis.name}
    ordinary = reference_requests(open_training_file(str(request.ordinary)))
    vectorizers, measured = axis_vectorizers(requests, ordinary, encoders, request.seed)
    common["notes"] = (*result.notes, _split_sentence(len(ordinary), len(measured)), EVIDENCE)
    vectorize = vectorizers[axis.name][1]
    harm_vectors, ordinary_vectors = (vectorize([item.text for item in items]) for items in (requests, measured))
    ranked = [result.ranked[i] for i in choose_shown(len(result.ranked), limit, request.seed)]
    places = {(item.id, item.text): i for i, item in reversed(list(enumerate(requests)))}
    nearest = np.array([places[sample.nearest_id, sample.nearest_text] for sample in ranked])
    shown_harm, nearest = choose_harm(nearest, len(requests), request.seed)
    vectors = stack_rows([vectorize([sample.text for sample in ranked]), harm_vectors[shown_harm]])
    return DataView(
        data=result.data,
        verb="check",
        axis=(axis.name, axis.encoder),
        samples=_samples(request, [(sample.id, sample.row, sample.text) for sample in ranked]),
        ranks=np.array([sample.rank for sample in ranked]),
        distances=np.array([sample.distance for sample in ranked]),
        nearer=np.array([sample.nearer for sample in ranked]),
        harm=_harm_items(harm, shown_harm),
        nearest=nearest,
        vectors=vectors,
        total=len(result.ranked),
        histogram={
            DATA: np.array([sample.distance for sample in result.ranked]),
            ORDINARY: nearest_distances(ordinary_vectors, harm_vectors, k=1).distance,
            HARM: distances_to_others(harm_vectors, [item.cluster for item in requests]),
        },
        threshold=axis.threshold,
        **common,
    )


def _split_sentence(ordinary: int, measured: int) -> str:
    return (
        f"Of {ordinary:,} ordinary requests, {ordinary - measured:,} fitted the weights of words, and your data is "
        f"compared with the other {measured:,}."
    )


def _samples(request: CheckRequest, ranked: list[tuple[str, int, str]]) -> list[ViewItem]:
    data = open_training_file(str(request.data), request.columns)
    by_row = {sample.row: sample for sample in data.samples}
    clips = training_clips(data, [row for _, row, _ in ranked], request.columns)
    return [ViewItem(id, text, by_row[row].source, by_row[row].speaker, clips.get(row)) for id, row, text in ranked]


def _harm_items(harm: list[tuple[TrainingFile, RequestText]], shown: np.ndarray) -> list[ViewItem]:
    """The harmful requests that are shown, with their clips; all requests of one row share its clip."""
    clips: dict[tuple[str, str], str | bytes] = {}
    for file in {id(file): file for file, _ in harm}.values():
        rows = {sample.row: sample.id for sample in file.samples}
        clips |= {(file.ref, rows[row]): clip for row, clip in training_clips(file, list(rows)).items()}
    chosen = [harm[i] for i in shown.tolist()]
    return [ViewItem(item.id, item.text, item.source, None, clips.get((file.ref, item.id))) for file, item in chosen]
