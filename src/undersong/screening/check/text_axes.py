"""Axes of a check: distances of requests to harm, the share of ordinary requests that is nearer, and whether the axis
separates harm from ordinary requests."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from undersong.encoders.word_distances import build_vocabulary, fit_word_weights, word_vectors
from undersong.proximity.distances import nearest_distances
from undersong.proximity.separation import MIN_HARM_CLUSTERS, separation_auc
from undersong.screening.check.requests import RequestText
from undersong.screening.check.result import WORD_ENCODER, AxisCheck
from undersong.screening.check.shared_words import language_obstacle
from undersong.screening.check.verdict import shows_more
from undersong.statistics.bootstrap import Interval
from undersong.statistics.exceedances import low_quantile, predicted_count
from undersong.statistics.rates import cluster_design, clustered_rate
from undersong.types import Sample, UndersongError, Vectors

WORDS = "words"  # the axis that is always measured
ORDINARY_SHARE = 0.01  # of ordinary requests lie within the threshold
FIT_SHARE = 1 / 3  # of ordinary requests fit the weights of words; the threshold is measured on the others
# A hundredth of the requests are too few to see how alike those of a cluster are, so a quarter is looked at as well.
DESIGN_SHARE = 0.25

Vectorizer: TypeAlias = Callable[[Sequence[str]], Vectors]  # texts (n,) to vectors (n, dim)


@dataclass(frozen=True, slots=True)
class AxisMeasurement:
    """Findings of an axis on the requests of the data.

    Attributes:
        axis: The findings.
        requests: The measured requests, n of them.
        owners: Position of the sample that each belongs to.
        harm: The harmful requests.
        distances: Distance of each request to harm, (n,).
        nearest: Index in `harm` of the nearest harmful request, (n,); -1 if none is.
    """

    axis: AxisCheck
    requests: Sequence[RequestText]
    owners: Sequence[int]
    harm: Sequence[RequestText]
    distances: np.ndarray
    nearest: np.ndarray


def measure_text_axes(
    requests: Sequence[RequestText],
    owners: Sequence[int],
    harm: Sequence[RequestText],
    ordinary: Sequence[RequestText],
    encoders: Mapping[str, str],
    *,
    seed: int,
    level: float,
) -> list[AxisMeasurement]:
    """Measure requests on the axis of words and on further axes of texts.

    Weights of words are fitted on a third of the ordinary requests, and everything else is measured on the others.
    So if the data are as the ordinary requests are, the count of nearer ones has the predicted distribution exactly.

    Args:
        requests: Requests of the data that have words, at least one.
        owners: Position of the sample that each belongs to.
        harm: Harmful requests that have words.
        ordinary: Ordinary requests that have words.
        encoders: Encoder of each further axis.
        seed: Seed of the splits and of the bootstrap.
        level: Level of each axis's intervals.

    Raises:
        UndersongError: A reference is too small, or an encoder cannot embed a text.
    """
    if len({item.cluster for item in harm}) < MIN_HARM_CLUSTERS:
        raise UndersongError(
            f"The harm set has {len(harm)} requests with words, which are too few to see whether an axis tells them "
            "from ordinary ones; name more with --harm."
        )
    vectorizers, measured = axis_vectorizers(harm, ordinary, encoders, seed)
    words, *others = (
        _measure_axis(name, encoder, vectorize, (requests, owners), harm, measured, seed=seed, level=level)
        for name, (encoder, vectorize) in vectorizers.items()
    )
    return [_with_language_obstacle(words, [*harm, *ordinary]), *others]


def _with_language_obstacle(words: AxisMeasurement, references: Sequence[RequestText]) -> AxisMeasurement:
    """The axis of words with its obstacle, if the references have few words of the data.

    Harm that was found nonetheless counts: a request is near only by words that it shares with a harmful one.
    """
    if shows_more(words.axis):
        return words
    texts, others = ([item.text for item in items] for items in (words.requests, references))
    return replace(words, axis=replace(words.axis, obstacle=language_obstacle(texts, others)))


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
    fitted, measured = split_ordinary(ordinary, seed)
    vectorizers = {WORDS: (WORD_ENCODER, _word_vectorizer(fitted, harm))}
    vectorizers |= {name: (encoder, _encoder_vectorizer(encoder)) for name, encoder in encoders.items()}
    return vectorizers, measured


def _word_vectorizer(fitted: Sequence[RequestText], harm: Sequence[RequestText]) -> Vectorizer:
    weights = fit_word_weights([item.text for item in fitted])
    vocabulary = build_vocabulary([item.text for item in harm])
    return lambda texts: word_vectors(texts, weights, vocabulary)


def _encoder_vectorizer(spec: str) -> Vectorizer:
    """Vectors by an encoder of texts, which is loaded once."""
    from undersong.encoders.registry import make_encoder

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
    data: tuple[Sequence[RequestText], Sequence[int]],
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
    distinct: dict[str, int] = {}  # equal texts are measured once
    requests, owners = data
    positions = np.array([distinct.setdefault(item.text, len(distinct)) for item in requests])
    nearest = nearest_distances(vectorize(list(distinct)), harm_vectors, k=1)
    distances = nearest.distance[positions]
    ordinary_distances = nearest_distances(ordinary_vectors, harm_vectors, k=1).distance
    axis = compare_distances(
        (name, encoder, auc),
        (distances, [item.cluster for item in requests]),
        (ordinary_distances, clusters),
        level=level,
    )
    return AxisMeasurement(axis, requests, owners, harm, distances, nearest.index[positions])


def compare_distances(
    axis: tuple[str, str, Interval],
    data: tuple[np.ndarray, Sequence[Hashable]],
    ordinary: tuple[np.ndarray, Sequence[Hashable]],
    *,
    level: float,
    obstacle: str | None = None,
) -> AxisCheck:
    """Count the requests that lie nearer to harm than 99 % of ordinary ones, and predict the count of ordinary ones.

    Args:
        axis: Name, encoder and separation of the axis.
        data: Distances of the data's requests to harm, (n,), and their clusters.
        ordinary: The same of the ordinary requests.
        level: Level of the intervals.
        obstacle: Why the two cannot be compared; None if they can.
    """
    quantile, wide = (low_quantile(ordinary[0], share, ordinary[1]) for share in (ORDINARY_SHARE, DESIGN_SHARE))
    rate = clustered_rate(data[0] <= quantile.value, data[1], level)
    wide_effect = cluster_design((data[0] <= wide.value).astype(float), data[1]).design_effect
    expected = predicted_count(
        replace(quantile, design_effect=max(quantile.design_effect, wide.design_effect)),
        rate.n,
        max(rate.design_effect, wide_effect),
        level,
    )
    return AxisCheck(*axis, quantile.value, rate, expected, obstacle)


def split_ordinary(ordinary: Sequence[RequestText], seed: int) -> tuple[list[RequestText], list[RequestText]]:
    """The requests that an axis is fitted on, and the others, by whole clusters.

    Raises:
        UndersongError: There are too few.
    """
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
