"""The proximity table of a pool: distances, nearest harm item and rank per item, for one or several harm sets. Checks
quarantined items and constant scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.distances import BLOCK, NearestDistances, first_equal_row, nearest_distances
from undersong.proximity.product_distances import NO_NEAREST, product_distances
from undersong.types import Embeddings, Quarantined, UndersongError, Vectors

if TYPE_CHECKING:
    import pyarrow as pa


DEFAULT_NEIGHBORS = 5  # neighbors of `knn_distance`, unless the score gives K
SCORES = ("nearest", "knn:K", "centroid")
COSINE, PRODUCT = "cosine", "product"
DISTANCE_FUNCTIONS = {COSINE: nearest_distances, PRODUCT: product_distances}
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
    metric: str = COSINE,
) -> pa.Table:
    """Proximity table with one row per pool item, in the order of the pool.

    Columns are id, axis, harm_set, float32 distances, nearest_id and rank. Distances are cosine distances or, with the
    metric `product`, negative scalar products, which have no bounds. `distance` is the raw distance to the nearest harm
    item; `distance_centered` is the same after the pool's mean is subtracted from both sides. Both are always present
    (null: the item *is* the mean). `nearest_id` (null: all are equally near), `second_distance`, `knn_distance` and
    `centroid_distance` are raw, or centered with `center`. `rank` 1 is the closest by `score`; ties are broken by id.
    Score, centering, K and a metric other than the cosine are in the schema's metadata (`ranking_metadata`).

    Args:
        axis: Name of the axis.
        harm_set: Name of the harm set.
        pool: Embeddings of the pool.
        harm: Embeddings of the harm set.
        score: nearest, knn:K or centroid.
        center: Rank by centered distances.
        max_quarantined: Largest share of the pool that may be quarantined.
        metric: cosine, or product for vectors whose length counts.

    Raises:
        UndersongError: Items were quarantined that must not be missing (rule 2 in docs/contributing/rules.md), or the
            embeddings do not fit.
    """
    _, k = parse_score(score, len(harm.ids))
    total = len(pool.ids) + len(pool.quarantined)
    check_quarantine(f"on axis {axis}", pool.quarantined, total, harm.quarantined, max_quarantined)
    harm_ids, harm_vectors = harm_by_id(harm)
    measure = _distance_function(metric)
    raw = measure(pool.vectors, harm_vectors, k=k)
    centered = measure(pool.vectors, harm_vectors, k=k, center=mean_vector(pool.vectors))
    equal_rows = first_equal_row(pool.vectors)  # equal items get equal numbers, to the last bit
    return ranked_table(
        axis, harm_set, pool.ids, harm_ids, raw, centered, equal_rows, score=score, center=center, metric=metric
    )


def _distance_function(metric: str) -> Callable[..., NearestDistances]:
    if metric not in DISTANCE_FUNCTIONS:
        raise UndersongError(f"There is no metric {metric!r}; use {' or '.join(DISTANCE_FUNCTIONS)}.")
    return DISTANCE_FUNCTIONS[metric]


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
    metric: str = COSINE,
) -> pa.Table:
    """Proximity table from computed distances.

    Args:
        axis: Name of the axis.
        harm_set: Name of the harm set.
        ids: Ids of the pool, (n,).
        harm_ids: Ids of the harm set, (m,).
        raw: Raw distances of the pool to the harm set.
        centered: The same after subtracting the pool's mean.
        equal_rows: Index of the first item with exactly the same vector, whose numbers each item gets, (n,).
        score: nearest, knn:K or centroid.
        center: Rank by centered distances.
        metric: The metric of the distances.

    Raises:
        UndersongError: An item has no score, or all scores are equal.
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
        "distance_centered": _nullable_column(centered.distance[equal_rows]),
        "nearest_id": pa.array(
            [harm_ids[i] for i in distances.index[equal_rows]],
            pa.string(),
            mask=np.isnan(distances.distance[equal_rows]) | (distances.index[equal_rows] == NO_NEAREST),
        ),
        "second_distance": _nullable_column(distances.second_distance[equal_rows]),
        "knn_distance": _nullable_column(distances.knn_distance[equal_rows]),
        "centroid_distance": _nullable_column(distances.centroid_distance[equal_rows]),
        "rank": pa.array(rank, pa.int64()),
    }
    ranking = {"score": score, "centered": center, "neighbors": k} | _metric_entry(metric)
    ranking_json = json.dumps(ranking)
    return pa.table(columns).replace_schema_metadata({METADATA_KEY: ranking_json})


def _metric_entry(metric: str) -> dict[str, str]:
    """The metric in a table's metadata, unless it is the usual one."""
    return {} if metric == COSINE else {"metric": metric}


def mean_vector(vectors: Vectors) -> np.ndarray:
    """Mean (d,) float64 of the rows of `vectors` (n, d), summed by block."""
    total = np.zeros(vectors.shape[1])
    for start in range(0, vectors.shape[0], BLOCK):
        block = vectors[start : start + BLOCK]
        # A sparse matrix sums in its own type, whatever type the sum gets.
        total += (
            block.sum(axis=0, dtype=np.float64) if isinstance(block, np.ndarray) else block.astype(np.float64).sum(0)
        )
    return total / max(1, vectors.shape[0])


def ranking_metadata(table: pa.Table) -> dict:
    """`score`, `centered` and `neighbors` that a proximity table was ranked by, and `metric` if it is not the cosine.

    Raises:
        UndersongError: The table is not a proximity table.
    """
    metadata = table.schema.metadata or {}
    if METADATA_KEY not in metadata:
        raise UndersongError("This table does not say how it was ranked; give a proximity.parquet that screen wrote.")
    return json.loads(metadata[METADATA_KEY])


def ranking_scores(table: pa.Table) -> np.ndarray:
    """Column that a proximity table is ranked by, (n,) float32."""
    ranking = ranking_metadata(table)
    kind = ranking["score"].partition(":")[0]
    column = {"knn": "knn_distance", "centroid": "centroid_distance"}.get(kind)
    if column is None:
        column = "distance_centered" if ranking["centered"] else "distance"
    return table.column(column).to_numpy()


def parse_score(score: str, harm_items: int) -> tuple[str, int]:
    """Kind and K of a score `nearest`, `knn:K` or `centroid`.

    Without a given K it is 5, or the size of a smaller harm set.

    Raises:
        UndersongError: The score is unknown.
    """
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
    """Check that no harm item, and only a small share of the pool, was quarantined.

    Args:
        context: The step at which items were lost, for the message.
        quarantined: Quarantined pool items.
        total: Number of all pool items.
        harm_quarantined: Quarantined harm items.
        max_quarantined: Largest share of the pool that may be quarantined.

    Raises:
        UndersongError: A harm item is quarantined, or too many pool items are.
    """
    if harm_quarantined:
        item = harm_quarantined[0]
        raise UndersongError(
            f"Harm item {item.id} cannot be used {context} ({item.reason}; {len(harm_quarantined)} in all); "
            "fix it, remove it from the harm set, or leave this axis out."
        )
    if len(quarantined) > max_quarantined * total:
        item = quarantined[0]
        raise UndersongError(
            f"{len(quarantined)} of {total} pool items cannot be used {context}, the first: {item.id} ({item.reason}); "
            f"fix them, or allow a larger share than {max_quarantined:g} (max_quarantined; screen --max-quarantined)."
        )


def harm_by_id(harm: Embeddings) -> tuple[list[str], Vectors]:
    """Harm ids in sorted order, and their vectors: of equally near items the lowest id is named."""
    order = sorted(range(len(harm.ids)), key=harm.ids.__getitem__)
    return [harm.ids[i] for i in order], harm.vectors[order]


def _ranks(axis: str, ids: Sequence[str], values: np.ndarray) -> np.ndarray:
    if (is_missing := np.isnan(values)).any():
        raise UndersongError(
            f"Pool item {ids[int(is_missing.argmax())]} has no score on axis {axis}: its vector is the pool's mean, or "
            "the harm set has no centroid direction; rank by another score or without centering."
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
    """Column of float32 with NaN as null (a missing value)."""
    import pyarrow as pa

    return pa.array(values, pa.float32(), mask=np.isnan(values))


def single_axis(proximity: pa.Table) -> str:
    """Axis of a table with one axis and one harm set.

    Raises:
        UndersongError: The table has several axes or harm sets, or is empty.
    """
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
    """Harm sets of a proximity table, in order; empty if it has no such column."""
    return proximity.column("harm_set").unique().to_pylist() if "harm_set" in proximity.column_names else []


def proximity_tables(
    axis: str,
    pool: Embeddings,
    harm: Mapping[str, Embeddings],
    *,
    score: str = "nearest",
    center: bool = False,
    max_quarantined: float = 0.01,
    metric: str = COSINE,
) -> pa.Table:
    """Rows of `proximity_table` for each named harm set, one set after the other, distinguished by `harm_set`.

    Ranks are within a harm set. The pool's mean and its equal items are computed once. In the metadata, `neighbors` is
    given per harm set.

    Args:
        axis: Name of the axis.
        pool: Embeddings of the pool.
        harm: Embeddings of each harm set.
        score: nearest, knn:K or centroid.
        center: Rank by centered distances.
        max_quarantined: Largest share of the pool that may be quarantined.
        metric: cosine, or product for vectors whose length counts.

    Raises:
        UndersongError: There is no harm set, or `proximity_table` would fail.
    """
    import pyarrow as pa

    if not harm:
        raise UndersongError(f"There is no harm set to measure axis {axis} to; name at least one.")
    total = len(pool.ids) + len(pool.quarantined)
    for name, items in harm.items():
        context = f"on axis {axis} to {name}"
        check_quarantine(context, pool.quarantined, total, items.quarantined, max_quarantined)
    measure, mean = _distance_function(metric), mean_vector(pool.vectors)
    equal_rows = first_equal_row(pool.vectors)
    tables = {}
    for name, items in harm.items():
        _, k = parse_score(score, len(items.ids))
        ids, vectors = harm_by_id(items)
        raw, centered = (measure(pool.vectors, vectors, k=k, center=offset) for offset in (None, mean))
        tables[name] = ranked_table(
            axis, name, pool.ids, ids, raw, centered, equal_rows, score=score, center=center, metric=metric
        )
    neighbors = {name: ranking_metadata(table)["neighbors"] for name, table in tables.items()}
    ranking_json = json.dumps({"score": score, "centered": center, "neighbors": neighbors} | _metric_entry(metric))
    return pa.concat_tables(tables.values()).replace_schema_metadata({METADATA_KEY: ranking_json})


def filter_harm_set(table: pa.Table, name: str) -> pa.Table:
    """Rows of one harm set, as `proximity_table` returns them: the input of a selection.

    If the table has several harm sets, the metadata name the chosen one, and so does a selection.

    Raises:
        UndersongError: The table does not have this harm set.
    """
    import pyarrow.compute as pc

    if name not in harm_set_names(table):
        raise UndersongError(
            f"The table has the harm sets {', '.join(harm_set_names(table))}, not {name!r}; name one of them."
        )
    ranking = ranking_metadata(table)
    if isinstance(ranking["neighbors"], dict):
        ranking["neighbors"] = ranking["neighbors"][name]
    if len(harm_set_names(table)) > 1:
        ranking["harm_set"] = name
    rows = table.filter(pc.equal(table.column("harm_set"), name))
    return rows.replace_schema_metadata({METADATA_KEY: json.dumps(ranking)})


def nearest_margin(table: pa.Table) -> np.ndarray:
    """Distance to the second harm item minus that to the nearest, (n,) float32; NaN if there is no second.

    Near 0 the named item is one of several. Both distances are centered if the table is ranked by centered distances.
    """
    distance_column = "distance_centered" if ranking_metadata(table)["centered"] else "distance"
    second_distance = table.column("second_distance").to_numpy()
    return np.maximum(second_distance - table.column(distance_column).to_numpy(), np.float32(0))
