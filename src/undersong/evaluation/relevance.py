"""Relevance of replies: the rank of a request's similarity to its reply among all requests of the set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.encoders.sparse_vectors import row_products, unit_rows
from undersong.types import Encoder, Sample, UndersongError


@dataclass(frozen=True, slots=True)
class Relevance:
    """Rank of a reply's own request among the `requests` of its set (a cluster is one request).

    Attributes:
        rank: Rank of its own request; 1 is the nearest, and ties count against it.
        requests: Number of requests.
        percentile: Share of the other requests that are less near, ties half; its mean over replies is the AUC.
        chance_top: Mean share of rank 1 if the reply were to the requests of the other replies (permuted pairs); None
            if there are no others.
        chance_about: The same for being within the relevance level.
        chance_percentile: The same for the percentile.
    """

    rank: int
    requests: int
    percentile: float
    chance_top: float | None
    chance_about: float | None
    chance_percentile: float | None

    def is_about_request(self, level: float) -> bool:
        """True if its own request is among the nearest `level` (a share) of all; chance alone gives at most that
        share."""
        return bool(rank_within_level(np.array(self.rank), self.requests, level))


def rank_within_level(ranks: np.ndarray, requests: int, level: float) -> np.ndarray:
    """True for ranks among the nearest `level` (a share) of `requests`."""
    return np.asarray(ranks <= level * requests + 1e-9)


def min_requests(level: float) -> int:
    """Smallest number of requests with which a reply can be about one at this level."""
    return int(np.ceil(1 / level - 1e-9))


def rank_relevance(similarity: np.ndarray, request_columns: Sequence[int], level: float) -> list[Relevance]:
    """Relevance of each reply.

    Args:
        similarity: Similarities, (replies, requests).
        request_columns: Column of the request that each reply is to, (replies,).
        level: Share of nearest requests that a reply may be about.

    Raises:
        UndersongError: There is only one request.
    """
    from scipy.stats import rankdata

    count, requests = similarity.shape
    if requests < 2:
        raise UndersongError("Relevance cannot be ranked in a set with a single request; give a set with several.")
    pessimistic_ranks, average_ranks = (rankdata(-similarity, method=method, axis=1) for method in ("max", "average"))
    percentiles = 1 - (average_ranks - 1) / (requests - 1)
    reply_columns = np.asarray(request_columns)
    relevance_scores = []
    for row in range(count):
        column = int(reply_columns[row])
        # One column per reply: a request with more replies occurs more often.
        other_columns = reply_columns[reply_columns != column]
        chance: tuple[float | None, float | None, float | None] = None, None, None
        if len(other_columns):
            chance_ranks = pessimistic_ranks[row, other_columns]
            within_level = rank_within_level(chance_ranks, requests, level)
            chance = (
                float((chance_ranks == 1).mean()),
                float(within_level.mean()),
                float(percentiles[row, other_columns].mean()),
            )
        relevance_scores.append(
            Relevance(int(pessimistic_ranks[row, column]), requests, float(percentiles[row, column]), *chance)
        )
    return relevance_scores


def measure_relevance(
    encoder: Encoder, requests: Mapping[str, Sequence[str]], replies: Sequence[tuple[str, str]], level: float
) -> list[Relevance | None]:
    """Relevance of each reply by a text encoder, in order; None for a reply that is empty or cannot be embedded.

    Args:
        encoder: Text encoder.
        requests: Texts of each cluster, of which the nearest counts.
        replies: Cluster and reply text of each reply.
        level: Share of nearest requests that a reply may be about.

    Raises:
        UndersongError: A request cannot be embedded.
    """
    column_by_cluster = {cluster: column for column, cluster in enumerate(requests)}
    request_texts = [text.strip() for texts in requests.values() for text in texts]
    columns = np.array([column_by_cluster[cluster] for cluster, texts in requests.items() for _ in texts])
    texts = sorted({*request_texts, *(reply.strip() for _, reply in replies)} - {""})
    embeddings = encoder.encode([Sample(str(number), text=text) for number, text in enumerate(texts)])
    row_by_text = {texts[int(sample_id)]: row for row, sample_id in enumerate(embeddings.ids)}
    if missing_clusters := [
        cluster for cluster, texts in requests.items() for text in texts if text.strip() not in row_by_text
    ]:
        raise UndersongError(f"{encoder.name} cannot embed the request of {missing_clusters[0]}; use another encoder.")
    embedded_rows = [row for row, (_, reply) in enumerate(replies) if reply.strip() in row_by_text]
    results: list[Relevance | None] = [None] * len(replies)
    if not embedded_rows:
        return results
    vectors = unit_rows(embeddings.vectors)
    cosines = row_products(
        vectors[[row_by_text[replies[row][1].strip()] for row in embedded_rows]],
        vectors[[row_by_text[text] for text in request_texts]],
    )
    # The nearest text of each request; rounding keeps equal similarities equal.
    nearest = np.stack(
        [cosines[:, columns == column].max(axis=1) for column in range(len(column_by_cluster))], axis=1
    ).round(6)
    for row, relevance in zip(
        embedded_rows, rank_relevance(nearest, [column_by_cluster[replies[row][0]] for row in embedded_rows], level)
    ):
        results[row] = relevance
    return results
