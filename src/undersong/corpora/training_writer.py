"""Writing a training file back in its own format without some of its rows. Lines and records that stay keep their
bytes."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from undersong.corpora.tables import DELIMITERS, strict_json, text_lines
from undersong.corpora.training_file import DATASET_INFO, TrainingFile
from undersong.store.atomic import atomic_replacement, write_atomic
from undersong.store.parquet import parquet_file, parquet_writer
from undersong.types import UndersongError

WRITABLE_FORMATS = ("jsonl", "json", "csv", "parquet", "folder")
SUFFIXES = {"jsonl": (".jsonl", ".ndjson"), "json": (".json",), "csv": (".csv", ".tsv"), "parquet": (".parquet",)}


def check_writable(data: TrainingFile, out: Path) -> None:
    """Check before anything is computed that a file can be written back.

    Raises:
        UndersongError: The format cannot be, `out` is the data itself or has the suffix of another format, something is
            there that would be lost, or its folder cannot be written.
    """
    if data.path is None or data.table_format not in WRITABLE_FORMATS:
        raise UndersongError(
            f"{data.ref} ({data.recognized}) cannot be written back in its own format; use `undersong screen --keep`, "
            "which writes other formats."
        )
    if out.resolve() == data.path.resolve():
        raise UndersongError(f"{out} is the data itself, which is never replaced; name another file with --fix.")
    if data.path.is_dir() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UndersongError(f"{out} exists; name a new folder with --fix.")
    if data.path.is_file() and out.is_dir():
        raise UndersongError(f"{out} is a folder; name a file with --fix.")
    if data.path.is_file() and os.path.lexists(out):
        raise UndersongError(f"{out} exists; name a new file with --fix.")
    suffix = data.path.suffix
    if data.path.is_file() and out.suffix.lower() not in (suffix.lower(), *SUFFIXES[data.table_format]):
        suffix = suffix or SUFFIXES[data.table_format][0]
        fitting = out.with_suffix(suffix)
        if out.suffix.lower() not in chain(*SUFFIXES.values()) or fitting.resolve() == data.path.resolve():
            fitting = out.with_name(out.name + suffix)  # train.fixed, or train.csv for train.jsonl
        raise UndersongError(
            f"{data.ref} is written back as it is, {data.table_format.upper()}, which {out.name} does not end as; "
            f"name it {fitting} with --fix."
        )
    _check_folder(out)


def _check_folder(out: Path) -> None:
    """Make a file in the folder of `out`, or in the nearest one above that is there, and remove it."""
    folder = next(parent for parent in out.absolute().parents if os.path.exists(parent))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f" ({error.strerror})" if error.strerror else ""
        raise UndersongError(f"{out} cannot be written{reason}; name a file in another folder with --fix.") from error


def write_without(data: TrainingFile, dropped: Collection[int], out: Path) -> Path | None:
    """Write the rows of a training file but for the dropped ones; the `dataset_info.json` if one is written beside it.

    Args:
        data: The file as read.
        dropped: Places of rows, from 0.
        out: The file to write; a folder for a folder.

    Raises:
        UndersongError: See `check_writable`.
    """
    check_writable(data, out)
    assert data.path is not None
    rows = frozenset(dropped)
    if data.table_format == "jsonl":
        write_atomic(out, "".join(_kept_lines(data.path, rows)).encode())
    elif data.table_format == "json":
        write_atomic(out, _json_without(data.path, rows).encode())
    elif data.table_format == "csv":
        write_atomic(out, "".join(_kept_records(data.path, rows)).encode())
    elif data.table_format == "parquet":
        _write_parquet(data.path, rows, out)
    else:
        _write_folder(data, rows, out)
    return None if data.entry is None else _write_dataset_info(data, out)


def _kept_lines(file: Path, dropped: frozenset[int]) -> Iterator[str]:
    number = 0
    for line in text_lines(file):
        if line.strip():
            if number not in dropped:
                yield line
            number += 1


def _json_without(file: Path, dropped: frozenset[int]) -> str:
    """A JSON list, or an object that holds one, indented as the original is."""
    text = "".join(text_lines(file))
    document: Any = strict_json(text)
    key = None
    if isinstance(document, dict):
        key = next(name for name, value in document.items() if isinstance(value, list))
    rows = document if key is None else document[key]
    kept = [row for number, row in enumerate(rows) if number not in dropped]
    indent = re.search(r"^[\[{]\r?\n([ \t]+)", text)
    width = None if indent is None else "\t" if indent[1].startswith("\t") else len(indent[1])
    out = kept if key is None else {**document, key: kept}
    return json.dumps(out, ensure_ascii=text.isascii(), indent=width) + ("\n" if text.endswith("\n") else "")


def _kept_records(file: Path, dropped: frozenset[int]) -> Iterator[str]:
    """Lines of the header and of the kept records of a CSV file; a record may span several lines."""
    lines = list(text_lines(file))
    delimiter = max(DELIMITERS, key=lines[0].count)  # as the reader chooses it
    reader, start, number = csv.reader(iter(lines), delimiter=delimiter, strict=True), 0, -1
    for fields in reader:
        record = lines[start : reader.line_num]
        start = reader.line_num
        if not fields or number not in dropped:
            yield from record
        number += bool(fields)


def _write_parquet(file: Path, dropped: frozenset[int], out: Path) -> None:
    import pyarrow as pa

    with parquet_file(file) as table, atomic_replacement(out) as temporary:
        compression = table.metadata.row_group(0).column(0).compression if table.metadata.num_row_groups else "snappy"
        with parquet_writer(temporary, table.schema_arrow, compression=compression.lower()) as writer:
            start = 0
            for batch in table.iter_batches():
                mask = pa.array([number not in dropped for number in range(start, start + batch.num_rows)])
                writer.write_table(pa.Table.from_batches([batch.filter(mask)], table.schema_arrow))
                start += batch.num_rows


def _write_folder(data: TrainingFile, dropped: frozenset[int], out: Path) -> None:
    """A folder of audio: its transcript file without the rows, and the clips of the others (hard links if possible)."""
    from undersong.corpora.audio_folder import transcript_files, transcript_rows

    assert data.path is not None
    folder = data.path
    tables = transcript_files(folder)
    kept = [row for number, (_, row) in enumerate(transcript_rows(folder)) if number not in dropped]
    with atomic_replacement(out) as temporary:
        temporary.mkdir()
        for table in tables:
            records = _kept_lines if table.suffix.lower() == ".jsonl" else _kept_records
            (temporary / table.name).write_text("".join(records(table, dropped)), encoding="utf-8")
        for row in kept:
            source = os.path.normpath(folder / row["audio"])
            if os.path.isabs(row["audio"]) or not source.startswith(os.path.join(os.path.normpath(folder), "")):
                continue  # a clip elsewhere stays where it is
            target = temporary / os.path.relpath(source, folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() and os.path.isfile(source):
                try:
                    os.link(source, target)
                except OSError:
                    shutil.copyfile(source, target)


def new_entry(data: TrainingFile, out: Path) -> dict[str, Any] | None:
    """LLaMA-Factory's entry for the written file, by its name; None for a file that no `dataset_info.json` lists."""
    if data.entry is None:
        return None
    name, entry = data.entry
    assert data.path is not None
    if out.parent.resolve() == data.path.parent.resolve():
        name = out.stem.replace(".", "_")
    listed = listed_files(out.parent / DATASET_INFO)
    names = (name, *(f"{name}_{number}" for number in range(2, len(listed) + 3)))
    name = next(free for free in names if listed.get(free, out.name) == out.name)
    kept = {key: value for key, value in entry.items() if key not in ("file_name", "file_sha1")}
    return {name: {"file_name": out.name, **kept}}


def listed_files(info: Path) -> dict[str, Any]:
    """Name and file of each data set that a `dataset_info.json` lists; empty if there is none, or if it is no JSON."""
    try:
        document = strict_json("".join(text_lines(info))) if info.is_file() else None
    except (UndersongError, ValueError, RecursionError):  # nothing that a name could clash with
        return {}
    entries = document.items() if isinstance(document, dict) else ()
    return {name: entry.get("file_name") if isinstance(entry, dict) else None for name, entry in entries}


def _write_dataset_info(data: TrainingFile, out: Path) -> Path | None:
    """Write a `dataset_info.json` beside a file in a folder without one. One that exists is the user's to change."""
    info = out.parent / DATASET_INFO
    if info.exists():
        return None
    write_atomic(info, (json.dumps(new_entry(data, out), ensure_ascii=False, indent=2) + "\n").encode())
    return info
