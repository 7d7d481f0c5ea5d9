"""Is a reply about the request it is to?  Its own request's rank among all requests of the set, by an encoder's cosine.

No similarity is called large: a reply is about its request where few other requests are as near to it.  If replies had
nothing to do with their requests, each rank would be as likely as any other, so `level` is the share of replies that
would pass by chance, whatever the encoder.  Knows vectors and ranks; does not know what is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.types import Encoder, Sample, UndersongError


@dataclass(frozen=True, slots=True)
class Relevance:
    """One reply among the `requests` of its set (a cluster is one request).

    `rank`: of its own request, 1 the nearest, ties to its disadvantage; `percentile`: share of the other requests that
    are less near, ties half (its mean over replies is the AUC).  `chance_*`: the same, on average, if it were to the
    requests of the other replies (permuted pairs); None where there are none.
    """

    rank: int
    requests: int
    percentile: float
    chance_top: float | None
    chance_about: float | None
    chance_percentile: float | None

    def is_about_request(self, level: float) -> bool:
        """Whether its own request is among the nearest `level` (a share) of all: chance alone gives at most that
        share."""
        return bool(rank_within_level(np.array(self.rank), self.requests, level))


def rank_within_level(ranks: np.ndarray, requests: int, level: float) -> np.ndarray:
    """Whether requests of these ranks are among the nearest `level` of `requests`."""
    return np.asarray(ranks <= level * requests + 1e-9)


def min_requests(level: float) -> int:
    """Fewest requests among which a reply can be about one at this level."""
    return int(np.ceil(1 / level - 1e-9))


def rank_relevance(similarity: np.ndarray, request_columns: Sequence[int], level: float) -> list[Relevance]:
    """`similarity` (replies, requests), `own` (replies,) the column each reply is to -> one Relevance a reply."""
    from scipy.stats import rankdata

    count, requests = similarity.shape
    if requests < 2:
        raise UndersongError("A reply to the only request of a set can be about no other; give a set of several.")
    pessimistic_ranks, average_ranks = (rankdata(-similarity, method=method, axis=1) for method in ("max", "average"))
    percentiles = 1 - (average_ranks - 1) / (requests - 1)
    reply_columns = np.asarray(request_columns)
    relevance_scores = []
    for row in range(count):
        column = int(reply_columns[row])
        other_columns = reply_columns[
            reply_columns != column
        ]  # one a reply: a request with more replies is met more often
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
    """`requests`: cluster -> its texts, of which the nearest counts; `replies`: (cluster, reply).  One a reply, in
    order; None: it is empty, or the encoder cannot place it (no known word).

    Raises UndersongError where a request cannot be embedded.
    """
    column_by_cluster = {cluster: column for column, cluster in enumerate(requests)}
    request_texts = [text.strip() for texts in requests.values() for text in texts]
    columns = np.array([column_by_cluster[cluster] for cluster, texts in requests.items() for _ in texts])
    vectors = _unit_vectors(encoder, sorted({*request_texts, *(reply.strip() for _, reply in replies)} - {""}))
    if missing_clusters := [
        cluster for cluster, texts in requests.items() for text in texts if text.strip() not in vectors
    ]:
        raise UndersongError(f"{encoder.name} cannot embed the request of {missing_clusters[0]}; take another encoder.")
    embedded_rows = [row for row, (_, reply) in enumerate(replies) if reply.strip() in vectors]
    results: list[Relevance | None] = [None] * len(replies)
    if not embedded_rows:
        return results
    cosines = (
        np.stack([vectors[replies[row][1].strip()] for row in embedded_rows])
        @ np.stack([vectors[text] for text in request_texts]).T
    )
    # The nearest text of each request; rounding must not part what is equal.
    nearest = np.stack(
        [cosines[:, columns == column].max(axis=1) for column in range(len(column_by_cluster))], axis=1
    ).round(6)
    for row, relevance in zip(
        embedded_rows, rank_relevance(nearest, [column_by_cluster[replies[row][0]] for row in embedded_rows], level)
    ):
        results[row] = relevance
    return results


def _unit_vectors(encoder: Encoder, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Text -> (dim,) float64 of length 1; without those that the encoder quarantines."""
    embeddings = encoder.encode([Sample(str(number), text=text) for number, text in enumerate(texts)])
    vectors = embeddings.vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return {texts[int(sample_id)]: vector for sample_id, vector in zip(embeddings.ids, vectors / lengths)}
