"""Requests of the data and of the references: what is asked, where it is from, and what belongs together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.corpora.training_file import TrainingFile, TrainingSample
from undersong.encoders.word_distances import split_words
from undersong.types import UndersongError


@dataclass(frozen=True, slots=True)
class RequestText:
    """One request: its text, where it is from, and its cluster."""

    id: str
    text: str
    cluster: Hashable
    source: str | None = None


def has_words(text: str) -> bool:
    """True if a text has a word that can be counted."""
    return bool(split_words(text))


def is_measured_by_words(sample: TrainingSample) -> bool:
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
    clusters = sample_clusters(data.samples)
    requests, owners = list[RequestText](), list[int]()
    for position, sample in enumerate(data.samples):
        for text in sample.requests:
            if has_words(text):
                requests.append(RequestText(sample.id, text, clusters[position], sample.source))
                owners.append(position)
    return requests, owners


def sample_clusters(samples: Sequence[TrainingSample]) -> list[int]:
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
