"""The replies table.  It holds what models said to harmful prompts, so it is readable by its owner only (mode 0600)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from undersong.types import Reply

COLUMNS = ("prompt_id", "set", "modality", "system", "reply", "tokens", "finish", "error")


def write_replies(replies: Sequence[Reply], path: Path) -> None:
    """Parquet with DESIGN's columns, created with mode 0600."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = [pa.string()] * 5 + [pa.int64(), pa.string(), pa.string()]
    table = pa.Table.from_pylist([asdict(reply) for reply in replies], schema=pa.schema(list(zip(COLUMNS, kinds))))
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # also where the file was there with other rights
        pq.write_table(table, file)


def read_replies(path: Path) -> list[Reply]:
    """What `write_replies` wrote."""
    import pyarrow.parquet as pq

    return [Reply(**row) for row in pq.read_table(path).to_pylist()]


def read_finishes(path: Path) -> list[str]:
    """How each reply ended, without the replies."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["finish"]).column("finish").to_pylist()
