"""From two sets of embeddings to `proximity.parquet`: how close every pool item lies to the reference harm set.

Knows what may not be ranked: a quarantined harm item, a pool that lost too much, scores that are all equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.distances import BLOCK, Nearest, first_equal, nearest
from undersong.types import Embeddings, Quarantined, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

NEIGHBOURS = 5  # of `knn_distance` where the score does not say
SCORES = ("nearest", "knn:K", "centroid")
METADATA = b"undersong"


def proximity_table(
    axis: str,
    harm_set: str,
    pool: Embeddings,
    harm: Embeddings,
    *,
    score: str = "nearest",
    centre: bool = False,
    max_quarantined: float = 0.01,
) -> pa.Table:
    """One row per pool item, in the pool's order: id, axis, harm_set, distances (float32, cosine), nearest_id, rank.

    `distance` is the raw one to the nearest harm item, `distance_centred` the same after the pool's mean is subtracted
    from both sides; both are always there (null: the item *is* the mean).  `nearest_id`, `second_distance`,
    `knn_distance` and `centroid_distance` are raw, or centred with `centre`.  `rank` 1 is the closest by `score`
    (nearest | knn:K | centroid), ties by id.  Score, centring and K stand in the schema's metadata, see `how`.
    Raises UndersongError for whatever must not be ranked (DESIGN rule 2) and for embeddings that do not fit.
    """
    _, k = parse_score(score, len(harm.ids))
    total = len(pool.ids) + len(pool.quarantined)
    check_quarantine(f"on axis {axis}", pool.quarantined, total, harm.quarantined, max_quarantined)
    harm_ids, harm_vectors = harm_by_id(harm)
    raw = nearest(pool.vectors, harm_vectors, k=k)
    blocks = (pool.vectors[start : start + BLOCK] for start in range(0, len(pool.ids), BLOCK))
    centred = nearest(pool.vectors, harm_vectors, k=k, centre=pool_mean(blocks))
    same = first_equal(pool.vectors)  # equal items get equal numbers, to the last bit
    return ranked_table(axis, harm_set, pool.ids, harm_ids, raw, centred, same, score=score, centre=centre)


def ranked_table(
    axis: str,
    harm_set: str,
    ids: Sequence[str],
    harm_ids: Sequence[str],
    raw: Nearest,
    centred: Nearest,
    same: np.ndarray,
    *,
    score: str,
    centre: bool,
) -> pa.Table:
    """The proximity table of distances that are there: `raw` and `centred` are of the items `ids` to `harm_ids`.

    `same` (n,): for each item the first one with the very same vector, whose numbers it gets.
    """
    import pyarrow as pa

    kind, k = parse_score(score, len(harm_ids))
    used = centred if centre else raw
    by_kind = {"nearest": used.distance, "knn": used.knn_distance, "centroid": used.centroid_distance}
    rank = _ranks(axis, ids, by_kind[kind][same])
    columns = {
        "id": pa.array(ids, pa.string()),
        "axis": pa.array([axis] * len(ids), pa.string()),
        "harm_set": pa.array([harm_set] * len(ids), pa.string()),
        "distance": _column(raw.distance[same]),
        "distance_centred": _column(centred.distance[same]),
        "nearest_id": pa.array(
            [harm_ids[i] for i in used.index[same]], pa.string(), mask=np.isnan(used.distance[same])
        ),
        "second_distance": _column(used.second_distance[same]),
        "knn_distance": _column(used.knn_distance[same]),
        "centroid_distance": _column(used.centroid_distance[same]),
        "rank": pa.array(rank, pa.int64()),
    }
    how = json.dumps({"score": score, "centred": centre, "neighbours": k})
    return pa.table(columns).replace_schema_metadata({METADATA: how})


def pool_mean(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """(d,) float64 mean of the rows of `blocks` (b, d), summed by block: a pool streamed in blocks has the same."""
    total, rows = np.zeros(0), 0
    for block in blocks:
        part = block.sum(axis=0, dtype=np.float64)
        total, rows = (part if rows == 0 else total + part), rows + len(block)
    return total / max(1, rows)


def how(table: pa.Table) -> dict:
    """`score`, `centred` and `neighbours` a proximity table was ranked by.  Raises UndersongError for another table."""
    metadata = table.schema.metadata or {}
    if METADATA not in metadata:
        raise UndersongError("This table does not say how it was ranked; give a proximity.parquet that screen wrote.")
    return json.loads(metadata[METADATA])


def scores(table: pa.Table) -> np.ndarray:
    """(n,) float32: the column a proximity table is ranked by."""
    facts = how(table)
    kind = facts["score"].partition(":")[0]
    column = {"knn": "knn_distance", "centroid": "centroid_distance"}.get(kind)
    if column is None:
        column = "distance_centred" if facts["centred"] else "distance"
    return table.column(column).to_numpy()


def parse_score(score: str, harm_items: int) -> tuple[str, int]:
    """`nearest` | `knn:K` | `centroid` -> kind and K (where it is not said: 5, or all of a smaller harm set)."""
    kind, _, number = score.partition(":")
    if score in ("nearest", "centroid"):
        return kind, max(1, min(NEIGHBOURS, harm_items))
    if kind != "knn" or not number.isdecimal() or int(number) < 1:
        raise UndersongError(f"Unknown score {score!r}; write {' | '.join(SCORES)} with a whole K >= 1, such as knn:5.")
    return kind, int(number)


def check_quarantine(
    where: str,
    lost: Sequence[Quarantined],
    total: int,
    harm_lost: Sequence[Quarantined],
    max_quarantined: float,
) -> None:
    """Raises UndersongError when a harm item, or more than `max_quarantined` (a share) of the pool, was left out.

    `lost` of `total` pool items; `where` says at which step, in words.
    """
    if harm_lost:
        item = harm_lost[0]
        raise UndersongError(
            f"Harm item {item.id} cannot be used {where} ({item.reason}; {len(harm_lost)} in all); mend it or take it "
            "out of the harm set."
        )
    if len(lost) > max_quarantined * total:
        item = lost[0]
        raise UndersongError(
            f"{len(lost)} of {total} pool items cannot be used {where}, the first: {item.id} ({item.reason}); mend "
            f"them, or allow a larger share than {max_quarantined:g} (max_quarantined; --max-quarantined of screen)."
        )


def harm_by_id(harm: Embeddings) -> tuple[list[str], np.ndarray]:
    """Harm ids in order and their vectors: of equally near items the lowest id is named."""
    order = sorted(range(len(harm.ids)), key=harm.ids.__getitem__)
    return [harm.ids[i] for i in order], harm.vectors[order]


def _ranks(axis: str, ids: Sequence[str], values: np.ndarray) -> np.ndarray:
    if (lost := np.isnan(values)).any():
        raise UndersongError(
            f"Pool item {ids[int(lost.argmax())]} has no score on axis {axis}: its vector is the pool's mean, or the "
            "harm set has no centroid direction; rank by another score or without centring."
        )
    if len(values) > 1 and np.ptp(values) <= np.finfo(np.float32).eps * np.abs(values).max():
        raise UndersongError(
            f"All {len(values)} scores on axis {axis} are equal ({values[0]:.6g}), so closest and distant mean "
            "nothing; check this axis's embeddings."
        )
    rank = np.empty(len(values), dtype=np.int64)
    rank[np.lexsort((np.array(ids), values))] = np.arange(1, len(values) + 1)
    return rank


def _column(values: np.ndarray) -> pa.Array:
    """float32 with NaN as null: not there, rather than not a number."""
    import pyarrow as pa

    return pa.array(values, pa.float32(), mask=np.isnan(values))
