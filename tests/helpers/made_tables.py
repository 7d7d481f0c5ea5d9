"""Proximity tables and facts made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def table(distances: Sequence[float], axis: str = "semantic", ids: Sequence[str] | None = None) -> pa.Table:
    """A proximity table with these distances, ranked by nearest, ties by id."""
    ids = list(ids or [f"i{k:03d}" for k in range(len(distances))])
    values = np.asarray(distances, np.float32)
    rank = np.empty(len(ids), np.int64)
    rank[np.lexsort((np.array(ids), values))] = np.arange(1, len(ids) + 1)
    columns = {"id": ids, "axis": [axis] * len(ids), "distance": values, "rank": rank}
    facts = json.dumps({"score": "nearest", "centered": False, "neighbors": 5})
    return pa.table(columns).replace_schema_metadata({"undersong": facts})


def facts(ids: Sequence[str], **columns: Sequence[object]) -> pa.Table:
    """Facts of these items."""
    return pa.table({"id": list(ids), **columns})
