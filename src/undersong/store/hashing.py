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

from undersong.store.atomic import atomic_replacement
from undersong.store.hashes import hash_file

SETTLE_TIME_NS = 2_000_000_000  # nanoseconds
COLUMNS = ("path", "size", "inode", "modified", "changed", "sha256")
Stamp = tuple[int, int, int, int]  # size, inode, modified, changed
UNTRUSTED_STAMP: Stamp = (-1, -1, -1, -1)


def cached_file_hashes(
    main_file: str, other_files: Callable[[], Sequence[str]], cache_file: Path | None = None
) -> list[str | None]:
    """SHA-256 of `head` and of the other files that it names (`rest`), each once, in order; None for what is no file.

    `memory`: a file that keeps them for the next time.  Where `head` is as it was, `rest` is not asked.
    """
    cached = _read_cache(cache_file) if cache_file is not None and cache_file.is_file() else {}
    updated: dict[str, tuple[Stamp, str | None]] = {}

    def lookup_hash(path: str) -> str | None:
        stamp = _stamp(path)
        entry = cached.get(path)
        if entry is None or entry[0] != stamp or stamp == UNTRUSTED_STAMP:
            entry = stamp, hash_file(path) if os.path.isfile(path) else None
        updated[path] = entry
        return entry[1]

    main_hash = lookup_hash(main_file)
    is_unchanged = bool(cached) and next(iter(cached)) == main_file and cached[main_file][1] == main_hash
    files = list(cached)[1:] if is_unchanged else [path for path in dict.fromkeys(other_files()) if path != main_file]
    hashes = [main_hash, *map(lookup_hash, files)]
    if cache_file is not None and updated != cached:
        with suppress(OSError):  # a store that is only read: nothing is lost but time
            _write_cache(cache_file, updated)
    return hashes


def _stamp(path: str) -> Stamp:
    """What says that a file is the same; NEVER for what is no file, or too young to tell."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return UNTRUSTED_STAMP
    if not stat.S_ISREG(status.st_mode) or time.time_ns() - status.st_ctime_ns < SETTLE_TIME_NS:
        return UNTRUSTED_STAMP
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _read_cache(cache_file: Path) -> dict[str, tuple[Stamp, str | None]]:
    """Nothing where it cannot be read: it only saves work."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(cache_file).read()
        columns = [table.column(name).to_pylist() for name in COLUMNS]
    except (OSError, KeyError, pa.ArrowException):
        return {}
    return {path: ((size, inode, m, c), digest) for path, size, inode, m, c, digest in zip(*columns)}


def _write_cache(cache_file: Path, entries: dict[str, tuple[Stamp, str | None]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stamps = list(zip(*(stamp for stamp, _ in entries.values())))
    columns = [list(entries), *stamps, [digest for _, digest in entries.values()]]
    types = (pa.string(), *(4 * (pa.int64(),)), pa.string())
    with atomic_replacement(cache_file) as temporary:
        table = pa.table([pa.array(column, kind) for column, kind in zip(columns, types)], names=list(COLUMNS))
        pq.write_table(table, temporary, compression="zstd")
