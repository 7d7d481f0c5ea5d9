"""A check from beginning to end: read data and references, measure, judge; from the store if nothing has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from undersong.corpora import corpus_hash
from undersong.corpora.training_file import TrainingFile, TrainingSample, find_dataset, open_training_file
from undersong.options import key_values
from undersong.pipeline.checking.axes import AxisMeasurement, RequestText, check_encoders, has_words, measure_axes
from undersong.pipeline.checking.options import CheckRequest
from undersong.pipeline.checking.output import publish_check, read_check, write_check
from undersong.pipeline.checking.result import CANNOT_TELL, CheckResult, RankedSample
from undersong.pipeline.checking.verdict import judge_axes, ranking_axis
from undersong.store import Draft, Store, hash_file
from undersong.types import UndersongError

CHECK_VERSION = 2  # of what a check finds
MAX_LISTED_ROWS = 10  # unreadable rows that are listed; all are counted


def run_check(request: CheckRequest) -> CheckResult:
    """Check a training file. The result of unchanged data, references and options is looked up in the store or cache.

    Args:
        request: The data and the options.

    Raises:
        UndersongError: Data or references cannot be read, or an output cannot be written.
    """
    check_encoders(request.axes or {})
    folder = request.store_folder
    result = _check(request) if folder is None else _check_from_store(request, Store(folder))
    if request.out is not None:
        publish_check(result, Path(request.out))
    return result


def _check_from_store(request: CheckRequest, store: Store) -> CheckResult:
    from undersong.encoders.registry import encoder_weights_hash
    from undersong.encoders.spec import parse_encoder
    from undersong.store.user_code import code_hash

    def make(draft: Draft) -> None:
        write_check(_check(request), draft.path)

    inputs = {f"harm{i}": _content_hash(ref) for i, ref in enumerate(request.harm_refs)}
    inputs |= {
        "ordinary": _content_hash(str(request.ordinary)),
        "data": _content_hash(str(request.data), request.columns),
    }
    for name, encoder in (request.axes or {}).items():
        spec = parse_encoder(encoder)
        inputs[f"encoder-{name}"] = code_hash(spec.code) if spec.code else str(encoder_weights_hash(spec))
    entry = find_dataset(str(request.data))[1]
    config = key_values(request, request.RESULT_NEUTRAL, request.HASHED_INPUTS, data=str(request.data)) | {
        "harm": list(request.harm_refs),
        "ordinary": str(request.ordinary),
        "entry": None if entry is None else [entry[0], dict(entry[1])],
    }
    return read_check(store.get_or_make("check", CHECK_VERSION, config, inputs, make, seed=request.seed).path)


def _content_hash(ref: str, columns: Mapping[str, str] | None = None) -> str:
    """Hash of a file's bytes, because clips that it names are not read; of any other corpus, that of its items."""
    path, _ = find_dataset(ref)
    return hash_file(path) if path is not None and path.is_file() else corpus_hash(ref, columns)


def _check(request: CheckRequest) -> CheckResult:
    data = open_training_file(str(request.data), request.columns)
    harm_sets = {ref: reference_requests(open_training_file(ref)) for ref in request.harm_refs}
    harm = [item for items in harm_sets.values() for item in items]
    ordinary = reference_requests(open_training_file(str(request.ordinary)))
    requests, owners = data_requests(data)
    measurements = measure_axes(requests, harm, ordinary, request.axes or {}, request.seed) if requests else []
    unmeasured = sum(not _is_measured(sample) for sample in data.samples)
    verdict = judge_axes(
        [measurement.axis for measurement in measurements],
        samples=len(data.samples),
        unmeasured=unmeasured,
        untranscribed=sum(sample.spoken and not sample.transcribed for sample in data.samples),
        unreadable=len(data.unreadable),
        columns=data.other_columns,
    )
    if unmeasured == len(data.samples) and verdict.word == CANNOT_TELL:
        measurements, requests = [], []  # of words beside clips, which do not tell what is said in them
    ranking = ranking_axis([measurement.axis for measurement in measurements])
    ranked = () if ranking is None else rank_samples(data, requests, owners, measurements[ranking], harm)
    return CheckResult(
        data=str(request.data),
        recognized=data.recognized,
        samples=len(data.samples),
        requests=len(requests),
        unmeasured=unmeasured,
        unreadable=tuple((item.id, item.reason) for item in data.unreadable[:MAX_LISTED_ROWS]),
        unreadable_count=len(data.unreadable),
        harm={ref: len(items) for ref, items in harm_sets.items()},
        ordinary={str(request.ordinary): len(ordinary)},
        axes=tuple(measurement.axis for measurement in measurements),
        ranked_by=None if ranking is None else measurements[ranking].axis.name,
        verdict=verdict.word,
        sentence=verdict.sentence,
        notes=verdict.notes,
        ranked=ranked,
    )


def _is_measured(sample: TrainingSample) -> bool:
    """True if words say what is asked: a written request, or a transcript."""
    return (not sample.spoken or sample.transcribed) and any(map(has_words, sample.requests))


def reference_requests(file: TrainingFile) -> list[RequestText]:
    """All requests of a reference that have words.

    Raises:
        UndersongError: None has.
    """
    requests = [
        RequestText(sample.id, text, sample.group or sample.id, sample.source)
        for sample in file.samples
        for text in sample.requests
        if has_words(text)
    ]
    if not requests:
        raise UndersongError(f"{file.ref} has no text to measure words by; name a corpus with texts.")
    return requests


def data_requests(data: TrainingFile) -> tuple[list[RequestText], list[int]]:
    """Requests of the data that have words, and the position of the sample that each belongs to.

    Samples of one group, and samples that share a text, are one cluster.
    """
    clusters = _clusters(data.samples)
    requests, owners = list[RequestText](), list[int]()
    for position, sample in enumerate(data.samples):
        for text in sample.requests:
            if has_words(text):
                requests.append(RequestText(sample.id, text, clusters[position], sample.source))
                owners.append(position)
    return requests, owners


def _clusters(samples: Sequence[TrainingSample]) -> list[int]:
    """Cluster (n,) of each sample: joined by a group or by an equal request."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first_with: dict[tuple[str, str], int] = {}
    pairs: list[tuple[int, int]] = []
    for position, sample in enumerate(samples):
        keys = [("text", text) for text in sample.requests]
        if sample.group is not None:
            keys.append(("group", sample.group))
        pairs += [(position, first_with.setdefault(key, position)) for key in keys]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(samples), len(samples)))
    return connected_components(links, directed=False)[1].tolist()


def rank_samples(
    data: TrainingFile,
    requests: Sequence[RequestText],
    owners: Sequence[int],
    measurement: AxisMeasurement,
    harm: Sequence[RequestText],
) -> tuple[RankedSample, ...]:
    """All measured samples, each by its nearest request, nearest first; ties are in the order of the file.

    Args:
        data: The training file.
        requests: Its measured requests.
        owners: Position of the sample of each request.
        measurement: Distances of the requests.
        harm: Harmful requests that the distances are to.
    """
    order = np.lexsort((np.asarray(owners), measurement.distances))
    ranked, seen = list[RankedSample](), set[int]()
    for position in order.tolist():
        owner = owners[position]
        if owner in seen:
            continue
        seen.add(owner)
        sample, nearest = data.samples[owner], harm[int(measurement.nearest[position])]
        distance = float(measurement.distances[position])
        ranked.append(
            RankedSample(
                rank=len(ranked) + 1,
                id=sample.id,
                row=sample.row,
                distance=distance,
                nearer=distance <= measurement.axis.threshold,
                text=requests[position].text,
                nearest_id=nearest.id,
                nearest_text=nearest.text,
                nearest_source=nearest.source,
            )
        )
    return tuple(ranked)
