"""Canonical JSON, hashes of files and folders, and a cache of file hashes keyed by size, inode and times."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from undersong.regular_files import check_regular_file, is_regular_file
from undersong.store.atomic import atomic_replacement, sweep_after_kill, walk_folder
from undersong.store.parquet import parquet_file, write_parquet
from undersong.types import UndersongError


def canonical_json(obj: Any) -> str:
    """The canonical JSON text of plain data: sorted keys, no blanks, floats by `repr`, ASCII, tuples as lists.

    Raises UndersongError with the path of a value that JSON cannot represent exactly: NaN, infinity, keys or objects of
    other types.
    """
    return json.dumps(to_jsonable(obj, "value"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_jsonable(obj: Any, label: str) -> Any:
    """Copy plain data with tuples as lists. `label` names `obj` in errors, which are those of `canonical_json`."""
    if obj is None or isinstance(obj, str | int) or (isinstance(obj, float) and math.isfinite(obj)):
        return obj
    if isinstance(obj, Mapping) and all(isinstance(key, str) for key in obj):  # JSON would write 1 and "1" alike
        return {key: to_jsonable(item, f"{label}.{key}") for key, item in obj.items()}
    if isinstance(obj, list | tuple):
        return [to_jsonable(item, f"{label}[{i}]") for i, item in enumerate(obj)]
    raise UndersongError(f"{label} is {obj!r}: use finite numbers, strings, lists, and mappings with string keys.")


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    if Path(path).exists():
        check_regular_file(path)
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UndersongError(f"cannot read {path}: {error.strerror}; check the path.") from error


def hash_folder(path: str | Path) -> str:
    """SHA-256 of the names and contents of all files in a folder, in hex (of an artifact: including its times)."""
    names = sorted(item.relative_to(path).as_posix() for item in walk_folder(Path(path)) if not item.is_dir())
    if not names:
        raise UndersongError(f"{path} is not a folder with files in it; check the path.")
    return hashlib.sha256(canonical_json([[name, hash_file(Path(path, name))] for name in names]).encode()).hexdigest()


SETTLE_TIME_NS = 2_000_000_000
COLUMNS = ("path", "size", "inode", "modified", "changed", "sha256")
Stamp = tuple[int, int, int, int]  # size, inode, modified, changed
UNTRUSTED_STAMP: Stamp = (-1, -1, -1, -1)


def cached_file_hashes(
    main_file: str, other_files: Callable[[], Sequence[str]], cache_file: Path | None = None
) -> list[str | None]:
    """SHA-256 of `main_file` and of the other files that it names, each once, in order; None for a missing file.

    `cache_file` keeps the hashes. If `main_file` has not changed, `other_files` is not called.
    """
    cached = _read_cache(cache_file) if cache_file is not None and cache_file.is_file() else {}
    updated: dict[str, tuple[Stamp, str | None]] = {}

    def lookup_hash(path: str) -> str | None:
        stamp = _stamp(path)
        entry = cached.get(path)
        if entry is None or entry[0] != stamp or stamp == UNTRUSTED_STAMP:
            entry = stamp, hash_file(path) if is_regular_file(path) else None
        updated[path] = entry
        return entry[1]

    main_hash = lookup_hash(main_file)
    is_unchanged = bool(cached) and next(iter(cached)) == main_file and cached[main_file][1] == main_hash
    files = list(cached)[1:] if is_unchanged else [path for path in dict.fromkeys(other_files()) if path != main_file]
    hashes = [main_hash, *map(lookup_hash, files)]
    if cache_file is not None:
        with suppress(OSError):  # a read-only store: only time is lost
            if updated != cached:
                _write_cache(cache_file, updated)
            else:
                sweep_after_kill(cache_file)  # nothing else will write it again
    return hashes


def _stamp(path: str) -> Stamp:
    """Stamp that identifies an unchanged file; UNTRUSTED_STAMP if it is no file, or too recently changed."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return UNTRUSTED_STAMP
    if not stat.S_ISREG(status.st_mode) or time.time_ns() - status.st_ctime_ns < SETTLE_TIME_NS:
        return UNTRUSTED_STAMP
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _read_cache(cache_file: Path) -> dict[str, tuple[Stamp, str | None]]:
    """Read the cache; empty if it cannot be read, because it only saves work."""
    import pyarrow as pa

    try:
        table = parquet_file(cache_file).read()
        columns = [table.column(name).to_pylist() for name in COLUMNS]
    except (OSError, KeyError, pa.ArrowException):
        return {}
    return {path: ((size, inode, m, c), digest) for path, size, inode, m, c, digest in zip(*columns)}


def _write_cache(cache_file: Path, entries: dict[str, tuple[Stamp, str | None]]) -> None:
    import pyarrow as pa

    stamps = list(zip(*(stamp for stamp, _ in entries.values())))
    columns = [list(entries), *stamps, [digest for _, digest in entries.values()]]
    types = (pa.string(), *(4 * (pa.int64(),)), pa.string())
    with atomic_replacement(cache_file) as temporary:
        table = pa.table([pa.array(column, kind) for column, kind in zip(columns, types)], names=list(COLUMNS))
        write_parquet(table, temporary, compression="zstd")
