"""Embeddings on disk: `embeddings-00000.parquet` (id, embedding, frames) and what was quarantined.

Knows DESIGN's columns; does not know which encoder made them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from undersong.types import Embeddings, Quarantined

SHARD = 50_000  # rows a file


def write_embeddings(embeddings: Embeddings, folder: Path) -> None:
    """Shards of `embeddings-*.parquet` and `quarantine.parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number, start in enumerate(range(0, len(embeddings.ids), SHARD)):
        vectors = np.ascontiguousarray(embeddings.vectors[start : start + SHARD], np.float32)
        table = pa.table(
            {
                "id": pa.array(embeddings.ids[start : start + SHARD], pa.string()),
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]),
                "frames": pa.array(embeddings.frames[start : start + SHARD], pa.int64()),
            }
        )
        pq.write_table(table, folder / f"embeddings-{number:05d}.parquet")
    lost = {"id": [q.id for q in embeddings.quarantined], "reason": [q.reason for q in embeddings.quarantined]}
    pq.write_table(
        pa.table(lost, schema=pa.schema([("id", pa.string()), ("reason", pa.string())])), folder / "quarantine.parquet"
    )


def read_embeddings(folder: Path) -> Embeddings:
    """What `write_embeddings` wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards = [pq.read_table(path) for path in sorted(folder.glob("embeddings-*.parquet"))]
    lost = tuple(Quarantined(**row) for row in pq.read_table(folder / "quarantine.parquet").to_pylist())
    if not shards:
        return Embeddings((), np.zeros((0, 0), np.float32), np.zeros(0, np.int64), lost)
    table = pa.concat_tables(shards).combine_chunks()
    column = table.column("embedding").combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)
    return Embeddings(tuple(table.column("id").to_pylist()), vectors, table.column("frames").to_numpy(), lost)
