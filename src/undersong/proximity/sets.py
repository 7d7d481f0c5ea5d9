"""Proximity to several harm sets at once, each named, in one table.  Knows tables; not where vectors came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.choosing.ranking import harm_sets
from undersong.proximity.distances import BLOCK, first_equal, nearest
from undersong.proximity.table import (
    METADATA,
    check_quarantine,
    harm_by_id,
    how,
    parse_score,
    pool_mean,
    ranked_table,
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
    centre: bool = False,
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
        where = f"on axis {axis} to {name}"
        check_quarantine(where, pool.quarantined, total, items.quarantined, max_quarantined)
    middle = pool_mean(pool.vectors[start : start + BLOCK] for start in range(0, len(pool.ids), BLOCK))
    same = first_equal(pool.vectors)
    parts = {}
    for name, items in harm.items():
        _, k = parse_score(score, len(items.ids))
        ids, vectors = harm_by_id(items)
        raw, centred = (nearest(pool.vectors, vectors, k=k, centre=centred) for centred in (None, middle))
        parts[name] = ranked_table(axis, name, pool.ids, ids, raw, centred, same, score=score, centre=centre)
    neighbours = {name: how(part)["neighbours"] for name, part in parts.items()}
    facts = json.dumps({"score": score, "centred": centre, "neighbours": neighbours})
    return pa.concat_tables(parts.values()).replace_schema_metadata({METADATA: facts})


def to_harm_set(table: pa.Table, name: str) -> pa.Table:
    """The rows of one harm set, as `proximity_table` gives them: what a selection is made on.

    Where there are several, `how` names the set, and so does a selection.
    """
    import pyarrow.compute as pc

    if name not in harm_sets(table):
        raise UndersongError(f"The table is to {', '.join(harm_sets(table))}, not to {name!r}; name one of them.")
    facts = how(table)
    if isinstance(facts["neighbours"], dict):
        facts["neighbours"] = facts["neighbours"][name]
    if len(harm_sets(table)) > 1:
        facts["harm_set"] = name
    rows = table.filter(pc.equal(table.column("harm_set"), name))
    return rows.replace_schema_metadata({METADATA: json.dumps(facts)})


def margin(table: pa.Table) -> np.ndarray:
    """(n,) float32: how much farther the second harm item is than the nearest; NaN where there is no second.

    Near 0 the item that is named is one of several.  Both distances are centred where the table is ranked centred.
    """
    first = "distance_centred" if how(table)["centred"] else "distance"
    second = table.column("second_distance").to_numpy()
    return np.maximum(second - table.column(first).to_numpy(), np.float32(0))
