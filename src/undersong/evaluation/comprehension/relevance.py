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

    def about(self, level: float) -> bool:
        """Whether its own request is among the nearest `level` (a share) of all: chance alone gives at most that
        share."""
        return bool(passes(np.array(self.rank), self.requests, level))


def passes(ranks: np.ndarray, requests: int, level: float) -> np.ndarray:
    """Whether requests of these ranks are among the nearest `level` of `requests`."""
    return np.asarray(ranks <= level * requests + 1e-9)


def least(level: float) -> int:
    """Fewest requests among which a reply can be about one at this level."""
    return int(np.ceil(1 / level - 1e-9))


def place(similarity: np.ndarray, own: Sequence[int], level: float) -> list[Relevance]:
    """`similarity` (replies, requests), `own` (replies,) the column each reply is to -> one Relevance a reply."""
    from scipy.stats import rankdata

    count, requests = similarity.shape
    if requests < 2:
        raise UndersongError("A reply to the only request of a set can be about no other; give a set of several.")
    last, middle = (rankdata(-similarity, method=how, axis=1) for how in ("max", "average"))
    percentiles = 1 - (middle - 1) / (requests - 1)
    mine = np.asarray(own)
    found = []
    for row in range(count):
        column = int(mine[row])
        others = mine[mine != column]  # one a reply: a request with more replies is met more often
        chance: tuple[float | None, float | None, float | None] = None, None, None
        if len(others):
            ranks = last[row, others]
            about = passes(ranks, requests, level)
            chance = float((ranks == 1).mean()), float(about.mean()), float(percentiles[row, others].mean())
        found.append(Relevance(int(last[row, column]), requests, float(percentiles[row, column]), *chance))
    return found


def relevances(
    encoder: Encoder, requests: Mapping[str, Sequence[str]], replies: Sequence[tuple[str, str]], level: float
) -> list[Relevance | None]:
    """`requests`: cluster -> its texts, of which the nearest counts; `replies`: (cluster, reply).  One a reply, in
    order; None: it is empty, or the encoder cannot place it (no known word).

    Raises UndersongError where a request cannot be embedded.
    """
    names = {name: column for column, name in enumerate(requests)}
    asked = [text.strip() for texts in requests.values() for text in texts]
    columns = np.array([names[name] for name, texts in requests.items() for _ in texts])
    vectors = _unit_vectors(encoder, sorted({*asked, *(said.strip() for _, said in replies)} - {""}))
    if lost := [name for name, texts in requests.items() for text in texts if text.strip() not in vectors]:
        raise UndersongError(f"{encoder.name} cannot embed the request of {lost[0]}; take another encoder.")
    kept = [row for row, (_, said) in enumerate(replies) if said.strip() in vectors]
    out: list[Relevance | None] = [None] * len(replies)
    if not kept:
        return out
    cosines = np.stack([vectors[replies[row][1].strip()] for row in kept]) @ np.stack([vectors[t] for t in asked]).T
    # The nearest text of each request; rounding must not part what is equal.
    nearest = np.stack([cosines[:, columns == column].max(axis=1) for column in range(len(names))], axis=1).round(6)
    for row, found in zip(kept, place(nearest, [names[replies[row][0]] for row in kept], level)):
        out[row] = found
    return out


def _unit_vectors(encoder: Encoder, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Text -> (dim,) float64 of length 1; without those that the encoder quarantines."""
    made = encoder.encode([Sample(str(number), text=text) for number, text in enumerate(texts)])
    vectors = made.vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return {texts[int(id)]: vector for id, vector in zip(made.ids, vectors / lengths)}
