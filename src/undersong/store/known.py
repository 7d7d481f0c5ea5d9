"""Hashes of files that have not changed since they were taken, so that a large corpus is not read again to be known.

As git's index: a file is the same where size, inode and both of its times are.  The time of its last change cannot be
set from outside, so nobody changes a file unnoticed; one that changed in the last two seconds is not trusted, because
it may change again within the clock's step.  Knows files; does not know what is in them.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from undersong.store.files import replacing
from undersong.store.hashes import hash_file

SETTLED = 2_000_000_000  # nanoseconds
COLUMNS = ("path", "size", "inode", "modified", "changed", "sha256")
Stamp = tuple[int, int, int, int]  # size, inode, modified, changed
NEVER: Stamp = (-1, -1, -1, -1)


def hash_files(head: str, rest: Callable[[], Sequence[str]], memory: Path | None = None) -> list[str | None]:
    """SHA-256 of `head` and of the other files that it names (`rest`), each once, in order; None for what is no file.

    `memory`: a file that keeps them for the next time.  Where `head` is as it was, `rest` is not asked.
    """
    known = _read(memory) if memory is not None and memory.is_file() else {}
    made: dict[str, tuple[Stamp, str | None]] = {}

    def known_hash(path: str) -> str | None:
        stamp = _stamp(path)
        before = known.get(path)
        if before is None or before[0] != stamp or stamp == NEVER:
            before = stamp, hash_file(path) if os.path.isfile(path) else None
        made[path] = before
        return before[1]

    first = known_hash(head)
    same = bool(known) and next(iter(known)) == head and known[head][1] == first
    files = list(known)[1:] if same else [path for path in dict.fromkeys(rest()) if path != head]
    found = [first, *map(known_hash, files)]
    if memory is not None and made != known:
        with suppress(OSError):  # a store that is only read: nothing is lost but time
            _write(memory, made)
    return found


def _stamp(path: str) -> Stamp:
    """What says that a file is the same; NEVER for what is no file, or too young to tell."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return NEVER
    if not stat.S_ISREG(found.st_mode) or time.time_ns() - found.st_ctime_ns < SETTLED:
        return NEVER
    return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _read(memory: Path) -> dict[str, tuple[Stamp, str | None]]:
    """Nothing where it cannot be read: it only saves work."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(memory).read()
        columns = [table.column(name).to_pylist() for name in COLUMNS]
    except (OSError, KeyError, pa.ArrowException):
        return {}
    return {path: ((size, inode, m, c), digest) for path, size, inode, m, c, digest in zip(*columns)}


def _write(memory: Path, made: dict[str, tuple[Stamp, str | None]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stamps = list(zip(*(stamp for stamp, _ in made.values())))
    columns = [list(made), *stamps, [digest for _, digest in made.values()]]
    types = (pa.string(), *(4 * (pa.int64(),)), pa.string())
    with replacing(memory) as temporary:
        table = pa.table([pa.array(column, kind) for column, kind in zip(columns, types)], names=list(COLUMNS))
        pq.write_table(table, temporary, compression="zstd")
