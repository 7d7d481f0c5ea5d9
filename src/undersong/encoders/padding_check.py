"""Agreement of exact and bucketed padding: Spearman correlation and overlap of the two rankings by distance to harmful
items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undersong.statistics.agreement import closest_overlap, spearman
from undersong.types import Embeddings, Encoder, Sample, UndersongError

CLOSEST_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class PaddingCheck:
    """Agreement of two kinds of padding on the `clips` that both could embed.

    `spearman` is the correlation of their distances to the nearest of `harm` items. `overlap` is the share of the `k`
    closest clips that they have in common, and `chance` its value for unrelated rankings.
    """

    clips: int
    harm: int
    k: int
    spearman: float
    overlap: float
    chance: float


def check_padding(exact: Encoder, bucket: Encoder, clips: Sequence[Sample], harm: Sequence[Sample]) -> PaddingCheck:
    """Embed clips with both kinds of padding and compare the rankings by cosine distance to the nearest harmful item.

    Args:
        exact: Encoder with exact padding.
        bucket: Encoder with bucketed padding.
        clips: The clips to rank.
        harm: The harmful reference.

    Raises:
        UndersongError: Fewer than four clips or no harmful item can be embedded both ways, or one kind of padding gives
            equal distances.
    """
    pools = [encoder.encode(clips) for encoder in (exact, bucket)]
    harms = [encoder.encode(harm) for encoder in (exact, bucket)]
    ids = _common_ids(pools)
    harm_ids = _common_ids(harms)
    if len(ids) < 4 or not harm_ids:
        raise UndersongError(
            f"{len(ids)} clips and {len(harm_ids)} harm items can be embedded both ways, of which a comparison needs "
            "4 and 1; give more."
        )
    scores = np.stack(
        [
            _nearest_distances(_unit_vectors(pool_embeddings, ids), _unit_vectors(harm_embeddings, harm_ids))
            for pool_embeddings, harm_embeddings in zip(pools, harms)
        ]
    )
    k = max(1, int(CLOSEST_SHARE * len(ids)))
    return PaddingCheck(
        clips=len(ids),
        harm=len(harm_ids),
        k=k,
        spearman=float(spearman(scores)[0, 1]),
        overlap=float(closest_overlap(scores, ids, k)[0, 1]),
        chance=k / len(ids),
    )


def _common_ids(embeddings: Sequence[Embeddings]) -> list[str]:
    """Ids that are in all of `embeddings`, in the order of the first."""
    others = [set(other.ids) for other in embeddings[1:]]
    return [id for id in embeddings[0].ids if all(id in ids for ids in others)]


def _unit_vectors(embeddings: Embeddings, ids: Sequence[str]) -> np.ndarray:
    """Unit vectors (ids, dim) float64, so that rounding does not hide half a percent of a common mean."""
    row_of = {id: row for row, id in enumerate(embeddings.ids)}
    vectors = embeddings.vectors[[row_of[id] for id in ids]].astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _nearest_distances(pool: np.ndarray, harm: np.ndarray) -> np.ndarray:
    return 1 - (pool @ harm.T).max(axis=1)
