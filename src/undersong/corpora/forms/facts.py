"""Facts of decoded items as rows of a table, and back.  Knows columns; decodes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undersong.corpora.alike.fingerprint import BANDS, MOMENTS
from undersong.corpora.sound.facts import Facts, all_facts
from undersong.types import Sample

if TYPE_CHECKING:
    import pyarrow as pa

PRINTS = "prints.parquet"
SIZE = BANDS * MOMENTS

Prints = Mapping[str, tuple[np.ndarray, float]]  # id -> `alike.fingerprint`


def facts_table(facts: Sequence[Facts]) -> pa.Table:
    """One row an item: id, reason, seconds, pcm_hash, print `fixed_size_list<halffloat>[512]`, sounding.

    A fingerprint is compared by cosines of two digits, so half precision keeps all of it that is used.
    """
    import pyarrow as pa

    prints = [None if one.print is None else one.print[0].astype(np.float16) for one in facts]
    flat = np.concatenate([np.zeros(SIZE, np.float16) if one is None else one for one in prints] or [np.zeros(0, "f2")])
    mask = pa.array([one is None for one in prints], pa.bool_())
    columns = {
        "id": pa.array([one.id for one in facts], pa.string()),
        "reason": pa.array([one.reason for one in facts], pa.string()),
        "seconds": pa.array([one.seconds for one in facts], pa.float64()),
        "pcm_hash": pa.array([one.pcm_hash for one in facts], pa.string()),
        "print": pa.FixedSizeListArray.from_arrays(pa.array(flat), SIZE, mask=mask),
        "sounding": pa.array([None if one.print is None else one.print[1] for one in facts], pa.float64()),
    }
    return pa.table(columns)


def facts_rows(samples: Sequence[Sample]) -> pa.Table:
    """A table of the facts of samples, which are decoded for it."""
    return facts_table(list(all_facts(samples)))


def facts_of_table(table: pa.Table) -> list[Facts]:
    """Facts without fingerprints, which stay in the table."""
    rows = table.select(["id", "reason", "seconds", "pcm_hash"]).to_pylist()
    return [Facts(**row) for row in rows]


def write_prints(table: pa.Table, folder: Path) -> None:
    """`prints.parquet`: id, print and sounding of the items that have a fingerprint."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    kept = table.filter(pc.is_valid(table.column("print"))).select(["id", "print", "sounding"])
    pq.write_table(kept, folder / PRINTS, compression="zstd")


def read_prints(folder: Path) -> Prints:
    """Id -> (vector (512,) float32, seconds that sound); none where the corpus was not listened to."""
    import pyarrow.parquet as pq

    if not (folder / PRINTS).is_file():
        return {}
    table = pq.read_table(folder / PRINTS)
    flat = table.column("print").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.reshape(-1, SIZE).astype(np.float32)
    ids, seconds = table.column("id").to_pylist(), table.column("sounding").to_pylist()
    return dict(zip(ids, zip(vectors, seconds)))
