"""The axis of words: distances of requests to harm, the ordinary share that is nearer, and whether the axis
separates."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.encoders.word_distances import (
    WordWeights,
    build_vocabulary,
    fit_word_weights,
    split_words,
    word_vectors,
)
from undersong.pipeline.checking.result import AxisCheck
from undersong.proximity import nearest_distances
from undersong.proximity.separation import separation_auc
from undersong.statistics import clustered_rate, low_quantile, predicted_count
from undersong.types import UndersongError, Vectors

ORDINARY_SHARE = 0.01  # of ordinary requests lie within the threshold
FIT_SHARE = 1 / 3  # of ordinary requests fit the weights of words; the threshold is measured on the others


@dataclass(frozen=True, slots=True)
class RequestText:
    """One request: its text, where it is from, and its cluster."""

    id: str
    text: str
    cluster: Hashable
    source: str | None = None


@dataclass(frozen=True, slots=True)
class WordMeasurement:
    """What the axis of words says, and of each request (n,) the distance and the index of the nearest harmful text."""

    axis: AxisCheck
    distances: np.ndarray
    nearest: np.ndarray


@dataclass(frozen=True, slots=True)
class WordSpace:
    """Vectors by words: those of the harm set, of the ordinary requests that are measured, and of any other texts."""

    weights: WordWeights
    vocabulary: Mapping[str, int]
    harm_vectors: Vectors
    ordinary: Sequence[RequestText]
    ordinary_vectors: Vectors

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors (n, words + 1) of texts."""
        return word_vectors(texts, self.weights, self.vocabulary)


def fit_word_space(harm: Sequence[RequestText], ordinary: Sequence[RequestText], seed: int) -> WordSpace:
    """Fit the weights of words on a third of the ordinary requests; the others are measured.

    Args:
        harm: Harmful requests.
        ordinary: Ordinary requests.
        seed: Seed of the split.

    Raises:
        UndersongError: There are too few ordinary requests.
    """
    fitted, measured = _split_ordinary(ordinary, seed)
    weights = fit_word_weights([item.text for item in fitted])
    harm_texts = [item.text for item in harm]
    vocabulary = build_vocabulary(harm_texts)
    harm_vectors, ordinary_vectors = (
        word_vectors(texts, weights, vocabulary) for texts in (harm_texts, [item.text for item in measured])
    )
    return WordSpace(weights, vocabulary, harm_vectors, measured, ordinary_vectors)


def has_words(text: str) -> bool:
    """True if a text has a word that can be counted."""
    return bool(split_words(text))


def measure_words(
    requests: Sequence[RequestText], harm: Sequence[RequestText], ordinary: Sequence[RequestText], seed: int
) -> WordMeasurement:
    """Measure requests that have words, against a harm set and ordinary requests that do.

    Weights of words are fitted on a third of the ordinary requests, and everything else is measured on the others.
    So if the data are as the ordinary requests are, the count of nearer ones has the predicted distribution exactly.

    Args:
        requests: Requests of the data, at least one.
        harm: Harmful requests.
        ordinary: Ordinary requests.
        seed: Seed of the splits and of the bootstrap.

    Raises:
        UndersongError: A reference is too small.
    """
    if len({item.cluster for item in harm}) < 4:
        raise UndersongError(
            f"The harm set has {len(harm)} requests with words, which are too few to see whether words tell them from "
            "ordinary ones; name more with --harm."
        )
    space = fit_word_space(harm, ordinary, seed)
    harm_vectors, ordinary_vectors, measured = space.harm_vectors, space.ordinary_vectors, space.ordinary

    def distances_to(target: np.ndarray, heldout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        harmful, benign = (
            nearest_distances(vectors, harm_vectors[target], k=1).distance
            for vectors in (harm_vectors[heldout], ordinary_vectors)
        )
        return harmful, benign

    ordinary_clusters = [item.cluster for item in measured]
    auc = separation_auc(distances_to, [item.cluster for item in harm], ordinary_clusters, seed=seed)
    ordinary_distances = nearest_distances(ordinary_vectors, harm_vectors, k=1).distance
    quantile = low_quantile(ordinary_distances, ORDINARY_SHARE, ordinary_clusters)

    distinct: dict[str, int] = {}  # equal texts are measured once
    positions = np.array([distinct.setdefault(item.text, len(distinct)) for item in requests])
    nearest = nearest_distances(space.embed(list(distinct)), harm_vectors, k=1)
    distances = nearest.distance[positions]
    rate = clustered_rate(distances <= quantile.value, [item.cluster for item in requests])
    expected = predicted_count(quantile, rate.n, rate.design_effect)
    axis = AxisCheck("words", "tfidf", auc, quantile.value, rate, expected)
    return WordMeasurement(axis, distances, nearest.index[positions])


def _split_ordinary(ordinary: Sequence[RequestText], seed: int) -> tuple[list[RequestText], list[RequestText]]:
    """The requests that fit the weights, and the others, by whole clusters."""
    names = sorted({item.cluster for item in ordinary}, key=str)
    chosen = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[: int(len(names) * FIT_SHARE)]}
    parts = [[item for item in ordinary if (item.cluster in chosen) is fits] for fits in (True, False)]
    needed = round(1 / ORDINARY_SHARE)
    if len(parts[1]) < needed or not parts[0]:
        raise UndersongError(
            f"There are {len(ordinary)} ordinary requests with words, and {needed * 3 // 2} are needed to see what "
            "share lies near harm; name more with --ordinary."
        )
    return parts[0], parts[1]
