"""The proximity table of a pool: distances, nearest harm item and rank per item, for one or several harm sets.

Checks quarantined items and constant scores.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.distances import BLOCK, NearestDistances, first_equal_row, nearest_distances
from undersong.types import Embeddings, Quarantined, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa


DEFAULT_NEIGHBORS = 5  # of `knn_distance` where the score does not say
SCORES = ("nearest", "knn:K", "centroid")
METADATA_KEY = b"undersong"


def proximity_table(
    axis: str,
    harm_set: str,
    pool: Embeddings,
    harm: Embeddings,
    *,
    score: str = "nearest",
    center: bool = False,
    max_quarantined: float = 0.01,
) -> pa.Table:
    """One row per pool item, in the pool's order: id, axis, harm_set, distances (float32, cosine), nearest_id, rank.

    `distance` is the raw one to the nearest harm item, `distance_centred` the same after the pool's mean is subtracted
    from both sides; both are always there (null: the item *is* the mean).  `nearest_id`, `second_distance`,
    `knn_distance` and `centroid_distance` are raw, or centred with `center`.  `rank` 1 is the closest by `score`
    (nearest | knn:K | centroid), ties by id.  Score, centring and K stand in the schema's metadata, see `how`.
    Raises UndersongError for whatever must not be ranked (DESIGN rule 2) and for embeddings that do not fit.
    """
    _, k = parse_score(score, len(harm.ids))
    total = len(pool.ids) + len(pool.quarantined)
    check_quarantine(f"on axis {axis}", pool.quarantined, total, harm.quarantined, max_quarantined)
    harm_ids, harm_vectors = harm_by_id(harm)
    raw = nearest_distances(pool.vectors, harm_vectors, k=k)
    blocks = (pool.vectors[start : start + BLOCK] for start in range(0, len(pool.ids), BLOCK))
    centered = nearest_distances(pool.vectors, harm_vectors, k=k, center=pool_mean(blocks))
    equal_rows = first_equal_row(pool.vectors)  # equal items get equal numbers, to the last bit
    return ranked_table(axis, harm_set, pool.ids, harm_ids, raw, centered, equal_rows, score=score, center=center)


def ranked_table(
    axis: str,
    harm_set: str,
    ids: Sequence[str],
    harm_ids: Sequence[str],
    raw: NearestDistances,
    centered: NearestDistances,
    equal_rows: np.ndarray,
    *,
    score: str,
    center: bool,
) -> pa.Table:
    """The proximity table of distances that are there: `raw` and `centred` are of the items `ids` to `harm_ids`.

    `same` (n,): for each item the first one with the very same vector, whose numbers it gets.
    """
    import pyarrow as pa

    kind, k = parse_score(score, len(harm_ids))
    distances = centered if center else raw
    by_kind = {"nearest": distances.distance, "knn": distances.knn_distance, "centroid": distances.centroid_distance}
    rank = _ranks(axis, ids, by_kind[kind][equal_rows])
    columns = {
        "id": pa.array(ids, pa.string()),
        "axis": pa.array([axis] * len(ids), pa.string()),
        "harm_set": pa.array([harm_set] * len(ids), pa.string()),
        "distance": _nullable_column(raw.distance[equal_rows]),
        "distance_centred": _nullable_column(centered.distance[equal_rows]),
        "nearest_id": pa.array(
            [harm_ids[i] for i in distances.index[equal_rows]],
            pa.string(),
            mask=np.isnan(distances.distance[equal_rows]),
        ),
        "second_distance": _nullable_column(distances.second_distance[equal_rows]),
        "knn_distance": _nullable_column(distances.knn_distance[equal_rows]),
        "centroid_distance": _nullable_column(distances.centroid_distance[equal_rows]),
        "rank": pa.array(rank, pa.int64()),
    }
    ranking_json = json.dumps({"score": score, "centred": center, "neighbours": k})
    return pa.table(columns).replace_schema_metadata({METADATA_KEY: ranking_json})


def pool_mean(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """(d,) float64 mean of the rows of `blocks` (b, d), summed by block: a pool streamed in blocks has the same."""
    total, rows = np.zeros(0), 0
    for block in blocks:
        block_sum = block.sum(axis=0, dtype=np.float64)
        total, rows = (block_sum if rows == 0 else total + block_sum), rows + len(block)
    return total / max(1, rows)


def ranking_metadata(table: pa.Table) -> dict:
    """`score`, `centred` and `neighbours` a proximity table was ranked by.  Raises UndersongError for another table."""
    metadata = table.schema.metadata or {}
    if METADATA_KEY not in metadata:
        raise UndersongError("This table does not say how it was ranked; give a proximity.parquet that screen wrote.")
    return json.loads(metadata[METADATA_KEY])


def ranking_scores(table: pa.Table) -> np.ndarray:
    """(n,) float32: the column a proximity table is ranked by."""
    ranking = ranking_metadata(table)
    kind = ranking["score"].partition(":")[0]
    column = {"knn": "knn_distance", "centroid": "centroid_distance"}.get(kind)
    if column is None:
        column = "distance_centred" if ranking["centred"] else "distance"
    return table.column(column).to_numpy()


def parse_score(score: str, harm_items: int) -> tuple[str, int]:
    """`nearest` | `knn:K` | `centroid` -> kind and K (where it is not said: 5, or all of a smaller harm set)."""
    kind, _, number = score.partition(":")
    if score in ("nearest", "centroid"):
        return kind, max(1, min(DEFAULT_NEIGHBORS, harm_items))
    if kind != "knn" or not number.isdecimal() or int(number) < 1:
        raise UndersongError(f"Unknown score {score!r}; write {' | '.join(SCORES)} with a whole K >= 1, such as knn:5.")
    return kind, int(number)


def check_quarantine(
    context: str,
    quarantined: Sequence[Quarantined],
    total: int,
    harm_quarantined: Sequence[Quarantined],
    max_quarantined: float,
) -> None:
    """Raises UndersongError when a harm item, or more than `max_quarantined` (a share) of the pool, was left out.

    `lost` of `total` pool items; `where` says at which step, in words.
    """
    if harm_quarantined:
        item = harm_quarantined[0]
        raise UndersongError(
            f"Harm item {item.id} cannot be used {context} ({item.reason}; {len(harm_quarantined)} in all); mend it or take it "
            "out of the harm set."
        )
    if len(quarantined) > max_quarantined * total:
        item = quarantined[0]
        raise UndersongError(
            f"{len(quarantined)} of {total} pool items cannot be used {context}, the first: {item.id} ({item.reason}); mend "
            f"them, or allow a larger share than {max_quarantined:g} (max_quarantined; --max-quarantined of screen)."
        )


def harm_by_id(harm: Embeddings) -> tuple[list[str], np.ndarray]:
    """Harm ids in order and their vectors: of equally near items the lowest id is named."""
    order = sorted(range(len(harm.ids)), key=harm.ids.__getitem__)
    return [harm.ids[i] for i in order], harm.vectors[order]


def _ranks(axis: str, ids: Sequence[str], values: np.ndarray) -> np.ndarray:
    if (is_missing := np.isnan(values)).any():
        raise UndersongError(
            f"Pool item {ids[int(is_missing.argmax())]} has no score on axis {axis}: its vector is the pool's mean, or the "
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


def _nullable_column(values: np.ndarray) -> pa.Array:
    """float32 with NaN as null: not there, rather than not a number."""
    import pyarrow as pa

    return pa.array(values, pa.float32(), mask=np.isnan(values))


def single_axis(proximity: pa.Table) -> str:
    """The axis of a table that holds one, to one harm set.  Raises UndersongError for several."""
    axes = proximity.column("axis").unique().to_pylist()
    if len(axes) > 1:
        raise UndersongError(f"The proximity table holds {len(axes)} axes ({', '.join(axes)}); select on one of them.")
    sets = harm_set_names(proximity)
    if len(sets) > 1:
        raise UndersongError(f"The proximity table is to {len(sets)} harm sets ({', '.join(sets)}); select by one.")
    if not axes:
        raise UndersongError("The pool is empty, so there is nothing to select; check the manifest or its filters.")
    return axes[0]


def harm_set_names(proximity: pa.Table) -> list[str]:
    """The harm sets that a proximity table is to, in order; none where it does not say."""
    return proximity.column("harm_set").unique().to_pylist() if "harm_set" in proximity.column_names else []


def proximity_tables(
    axis: str,
    pool: Embeddings,
    harm: Mapping[str, Embeddings],
    *,
    score: str = "nearest",
    center: bool = False,
    max_quarantined: float = 0.01,
) -> pa.Table:
    """The rows of `proximity_table` for each named harm set, one set after the other, told apart by `harm_set`.

    Ranks are within a harm set, and the pool's mean and its equal items are found once.  `how` gives `neighbours` by
    harm set.  Raises UndersongError as `proximity_table` does, and where there is no harm set.
    """
    import pyarrow as pa

    if not harm:
        raise UndersongError(f"There is no harm set to measure axis {axis} to; name at least one.")
    total = len(pool.ids) + len(pool.quarantined)
    for name, items in harm.items():
        context = f"on axis {axis} to {name}"
        check_quarantine(context, pool.quarantined, total, items.quarantined, max_quarantined)
    mean = pool_mean(pool.vectors[start : start + BLOCK] for start in range(0, len(pool.ids), BLOCK))
    equal_rows = first_equal_row(pool.vectors)
    tables = {}
    for name, items in harm.items():
        _, k = parse_score(score, len(items.ids))
        ids, vectors = harm_by_id(items)
        raw, centered = (nearest_distances(pool.vectors, vectors, k=k, center=centred) for centred in (None, mean))
        tables[name] = ranked_table(axis, name, pool.ids, ids, raw, centered, equal_rows, score=score, center=center)
    neighbors = {name: ranking_metadata(table)["neighbours"] for name, table in tables.items()}
    ranking_json = json.dumps({"score": score, "centred": center, "neighbours": neighbors})
    return pa.concat_tables(tables.values()).replace_schema_metadata({METADATA_KEY: ranking_json})


def filter_harm_set(table: pa.Table, name: str) -> pa.Table:
    """The rows of one harm set, as `proximity_table` gives them: what a selection is made on.

    Where there are several, `how` names the set, and so does a selection.
    """
    import pyarrow.compute as pc

    if name not in harm_set_names(table):
        raise UndersongError(f"The table is to {', '.join(harm_set_names(table))}, not to {name!r}; name one of them.")
    ranking = ranking_metadata(table)
    if isinstance(ranking["neighbours"], dict):
        ranking["neighbours"] = ranking["neighbours"][name]
    if len(harm_set_names(table)) > 1:
        ranking["harm_set"] = name
    rows = table.filter(pc.equal(table.column("harm_set"), name))
    return rows.replace_schema_metadata({METADATA_KEY: json.dumps(ranking)})


def nearest_margin(table: pa.Table) -> np.ndarray:
    """(n,) float32: how much farther the second harm item is than the nearest; NaN where there is no second.

    Near 0 the item that is named is one of several.  Both distances are centred where the table is ranked centred.
    """
    distance_column = "distance_centred" if ranking_metadata(table)["centred"] else "distance"
    second_distance = table.column("second_distance").to_numpy()
    return np.maximum(second_distance - table.column(distance_column).to_numpy(), np.float32(0))
