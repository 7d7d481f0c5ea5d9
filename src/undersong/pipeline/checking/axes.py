"""Axes of a check: distances of requests to harm, the share of ordinary requests that is nearer, and whether the axis
separates harm from ordinary requests."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from undersong.encoders.word_distances import build_vocabulary, fit_word_weights, split_words, word_vectors
from undersong.pipeline.checking.result import AxisCheck
from undersong.proximity import nearest_distances
from undersong.proximity.separation import separation_auc
from undersong.statistics import clustered_rate, low_quantile, predicted_count
from undersong.types import Sample, UndersongError, Vectors

WORDS = "words"  # the axis that is always measured
ORDINARY_SHARE = 0.01  # of ordinary requests lie within the threshold
FIT_SHARE = 1 / 3  # of ordinary requests fit the weights of words; the threshold is measured on the others
LEVEL = 0.95  # of intervals, shared by all axes

Vectorizer: TypeAlias = Callable[[Sequence[str]], Vectors]  # texts (n,) to vectors (n, dim)


@dataclass(frozen=True, slots=True)
class RequestText:
    """One request: its text, where it is from, and its cluster."""

    id: str
    text: str
    cluster: Hashable
    source: str | None = None


@dataclass(frozen=True, slots=True)
class AxisMeasurement:
    """Findings of an axis, and of each request (n,) the distance and the index of the nearest harmful text."""

    axis: AxisCheck
    distances: np.ndarray
    nearest: np.ndarray


def has_words(text: str) -> bool:
    """True if a text has a word that can be counted."""
    return bool(split_words(text))


def measure_axes(
    requests: Sequence[RequestText],
    harm: Sequence[RequestText],
    ordinary: Sequence[RequestText],
    encoders: Mapping[str, str],
    seed: int,
) -> list[AxisMeasurement]:
    """Measure requests on the axis of words and on further ones.

    Weights of words are fitted on a third of the ordinary requests, and everything else is measured on the others.
    So if the data are as the ordinary requests are, the count of nearer ones has the predicted distribution exactly.
    With several axes, the level of their prediction intervals is that of all together (Bonferroni).

    Args:
        requests: Requests of the data that have words, at least one.
        harm: Harmful requests that have words.
        ordinary: Ordinary requests that have words.
        encoders: Encoder of each further axis.
        seed: Seed of the splits and of the bootstrap.

    Raises:
        UndersongError: A reference is too small, or an encoder cannot embed a text.
    """
    if len({item.cluster for item in harm}) < 4:
        raise UndersongError(
            f"The harm set has {len(harm)} requests with words, which are too few to see whether an axis tells them "
            "from ordinary ones; name more with --harm."
        )
    vectorizers, measured = axis_vectorizers(harm, ordinary, encoders, seed)
    level = 1 - (1 - LEVEL) / len(vectorizers)
    return [
        _measure_axis(name, encoder, vectorize, requests, harm, measured, seed=seed, level=level)
        for name, (encoder, vectorize) in vectorizers.items()
    ]


def axis_vectorizers(
    harm: Sequence[RequestText], ordinary: Sequence[RequestText], encoders: Mapping[str, str], seed: int
) -> tuple[dict[str, tuple[str, Vectorizer]], list[RequestText]]:
    """Encoder and vectorizer of each axis, words first, and the ordinary requests that none of them was fitted on.

    Args:
        harm: Harmful requests that have words.
        ordinary: Ordinary requests that have words.
        encoders: Encoder of each further axis.
        seed: Seed of the split of the ordinary requests.

    Raises:
        UndersongError: There are too few ordinary requests.
    """
    fitted, measured = _split_ordinary(ordinary, seed)
    vectorizers = {WORDS: ("tfidf", _word_vectorizer(fitted, harm))}
    vectorizers |= {name: (encoder, _encoder_vectorizer(encoder)) for name, encoder in encoders.items()}
    return vectorizers, measured


def check_encoders(encoders: Mapping[str, str]) -> None:
    """Check before anything is read that axes can be measured on texts.

    Raises:
        UndersongError: An encoder is unknown, needs audio or a model, or is the axis of words.
    """
    from undersong.encoders.spec import parse_encoder

    for name, encoder in encoders.items():
        spec = parse_encoder(encoder)
        if name == WORDS or spec.kind in ("tfidf", "char-ngrams"):
            raise UndersongError(f"Axis {name}={encoder}: words are always measured; leave this axis out.")
        if not spec.code and (spec.kind != "text" or spec.needs_audio):
            raise UndersongError(
                f"Axis {name}={encoder} does not measure texts, and the references of a check are written; take "
                "text[:ID], or `undersong screen` with a spoken harm set."
            )


def _word_vectorizer(fitted: Sequence[RequestText], harm: Sequence[RequestText]) -> Vectorizer:
    weights = fit_word_weights([item.text for item in fitted])
    vocabulary = build_vocabulary([item.text for item in harm])
    return lambda texts: word_vectors(texts, weights, vocabulary)


def _encoder_vectorizer(spec: str) -> Vectorizer:
    """Vectors by an encoder of texts, which is loaded once."""
    from undersong.encoders import make_encoder

    encoder = make_encoder(spec, fit=())

    def vectorize(texts: Sequence[str]) -> Vectors:
        embeddings = encoder.encode([Sample(f"{number}", text=text) for number, text in enumerate(texts)])
        if embeddings.quarantined:
            lost = embeddings.quarantined[0]
            raise UndersongError(
                f"The encoder {spec} cannot embed {len(embeddings.quarantined)} texts, the first: "
                f"{texts[int(lost.id)][:60]!r} ({lost.reason}); leave this axis out."
            )
        order = np.argsort(np.array(embeddings.ids, dtype=np.int64))
        return embeddings.vectors[order]

    return vectorize


def _measure_axis(
    name: str,
    encoder: str,
    vectorize: Vectorizer,
    requests: Sequence[RequestText],
    harm: Sequence[RequestText],
    ordinary: Sequence[RequestText],
    *,
    seed: int,
    level: float,
) -> AxisMeasurement:
    """Measure one axis against ordinary requests that its encoder was not fitted on."""
    harm_vectors, ordinary_vectors = (vectorize([item.text for item in items]) for items in (harm, ordinary))

    def distances_to(target: np.ndarray, heldout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        harmful, benign = (
            nearest_distances(vectors, harm_vectors[target], k=1).distance
            for vectors in (harm_vectors[heldout], ordinary_vectors)
        )
        return harmful, benign

    clusters = [item.cluster for item in ordinary]
    auc = separation_auc(distances_to, [item.cluster for item in harm], clusters, seed=seed, level=level)
    ordinary_distances = nearest_distances(ordinary_vectors, harm_vectors, k=1).distance
    quantile = low_quantile(ordinary_distances, ORDINARY_SHARE, clusters)

    distinct: dict[str, int] = {}  # equal texts are measured once
    positions = np.array([distinct.setdefault(item.text, len(distinct)) for item in requests])
    nearest = nearest_distances(vectorize(list(distinct)), harm_vectors, k=1)
    distances = nearest.distance[positions]
    rate = clustered_rate(distances <= quantile.value, [item.cluster for item in requests], level)
    expected = predicted_count(quantile, rate.n, rate.design_effect, level)
    axis = AxisCheck(name, encoder, auc, quantile.value, rate, expected)
    return AxisMeasurement(axis, distances, nearest.index[positions])


def _split_ordinary(ordinary: Sequence[RequestText], seed: int) -> tuple[list[RequestText], list[RequestText]]:
    """The requests that fit the weights, and the others, by whole clusters."""
    names = sorted({item.cluster for item in ordinary}, key=str)
    chosen = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[: int(len(names) * FIT_SHARE)]}
    fitted, measured = ([item for item in ordinary if (item.cluster in chosen) is fits] for fits in (True, False))
    needed = round(1 / ORDINARY_SHARE)
    if len(measured) < needed or not fitted:
        raise UndersongError(
            f"There are {len(ordinary)} ordinary requests with words, and {needed * 3 // 2} are needed to see what "
            "share lies near harm; name more with --ordinary."
        )
    return fitted, measured
