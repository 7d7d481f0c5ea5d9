"""Proximity to several harm sets at once, each named, in one table.  Knows tables; not where vectors came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.distances import BLOCK, first_equal_row, nearest_distances
from undersong.proximity.table import (
    METADATA_KEY,
    check_quarantine,
    harm_by_id,
    harm_set_names,
    parse_score,
    pool_mean,
    ranked_table,
    ranking_metadata,
)
from undersong.types import Embeddings, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa


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
