"""Detection of the format of a file or folder by its content, and `open_manifest`, which opens it as a `Manifest`.

Malformed files raise an error with the line number; unusable items are quarantined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

from undersong.corpora.chat_formats import CHAT_PARSERS, detect_chat_format
from undersong.corpora.column_names import HEAD_ROWS, ColumnReading, read_column_names
from undersong.corpora.manifest import CORPUS, Manifest, manifest_from_rows, read_manifest
from undersong.corpora.rows import FIELDS
from undersong.corpora.tables import (
    LocatedRow,
    check_manifest_file,
    csv_rows,
    json_list,
    json_rows,
    parquet_rows,
    strict_json,
    text_lines,
)
from undersong.suggestions import did_you_mean, suggest
from undersong.types import UndersongError

HUB_PREFIX = "hf:"
PARQUET_MAGIC = b"PAR1"
TABLE_FORMATS = ("jsonl", "json", "csv", "parquet")
FORMATS = ("manifest", *TABLE_FORMATS, *CHAT_PARSERS, "folder", "librispeech", "parquet-folder", "hf")


def open_manifest(
    path: str | Path,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    known_names: bool = True,
) -> Manifest:
    """Open the corpus at `path` in any supported format; `Manifest.format` says which one was detected.

    Files are JSONL, a JSON list, CSV/TSV or Parquet. They hold plain rows or conversations (`messages`, `sharegpt`,
    `kimi`, `alpaca`, `query`). A folder is a corpus artifact, audio with a transcript file (`folder`), LibriSpeech, or
    Parquet files as on the Hugging Face Hub. `hf:OWNER/NAME?config=…&split=…&revision=…` streams a data set of the Hub.
    If the first row has no id, rows without one get `FILE-NUMBER` by their order.

    Args:
        path: File, folder or `hf:` reference.
        format: One of FORMATS, instead of detection by content.
        columns: Our field -> column of the file (`a.b.0` and `a.*.b` lead into objects and lists). Other columns keep
            their names. Where no column is called `audio` or `text`, one with a common name of the field is taken,
            such as `path` or `transcript`, and `Manifest.notes` says so.
        root: Folder that no audio path may lead out of.
        known_names: False takes no column but by our names and the map.

    Raises:
        UndersongError: Unknown format, missing column, repeated id, or wrong type; names the file and the line or row.
    """
    if format is not None and format not in FORMATS:
        raise UndersongError(f"No format is called {format!r}; {suggest(format, FORMATS)}.")
    if columns and (unknown := sorted(set(columns) - set(FIELDS))):
        hint = did_you_mean(unknown[0], FIELDS) or f"; choose from {', '.join(FIELDS)}."
        raise UndersongError(f"The column map names {unknown[0]!r}, which is no field{hint}")
    if str(path).startswith(HUB_PREFIX) or format == "hf":
        from undersong.corpora.hf_hub import open_hub

        return open_hub(str(path), columns, known_names)
    source_format = format or detect_format(Path(path))
    if source_format == "manifest":
        if columns:
            raise UndersongError(f"{path} is a corpus artifact with fixed column names; leave the column map out.")
        return read_manifest(path, root)
    rows, row_format, audio_root = _located_rows(Path(path), source_format, columns or {})
    return manifest_from_rows(rows, row_format, audio_root, Path(path).stem, columns, root, Path(path), known_names)


def column_reading(path: Path, columns: Mapping[str, str]) -> ColumnReading:
    """Read the column map that `open_manifest` uses for a file or folder, by its first rows."""
    source_format = detect_format(path)
    if source_format == "manifest":
        return ColumnReading(dict(columns))
    rows, row_format, audio_root = _located_rows(path, source_format, columns)
    head = [row for _, row in islice(rows, HEAD_ROWS)]
    return read_column_names(head, row_format, columns, audio_root, path)


def detect_format(path: Path) -> str:
    """Detect the format of a file or folder by its content. Raises UndersongError if it is unknown."""
    from undersong.corpora.audio_folder import detect_folder_format

    if path.is_dir():
        return "manifest" if (path / CORPUS).is_file() else detect_folder_format(path)
    check_manifest_file(path)
    with path.open("rb") as file:
        if file.read(4) == PARQUET_MAGIC:
            return "parquet"
    first_line = next((line.strip() for line in text_lines(path) if line.strip()), "")
    if first_line.startswith("{") and (path.suffix.lower() == ".jsonl" or _is_json(first_line)):
        # A single line with an object that holds a list is a whole JSON file.
        return "json" if _is_json(first_line) and _is_wrapped(path) else "jsonl"
    if first_line.startswith(("{", "[")):
        return "json"
    if not first_line:
        raise UndersongError(f"Manifest {path} holds no items; add some, one per line.")
    return "csv"


def _located_rows(path: Path, source_format: str, columns: Mapping[str, str]) -> tuple[Iterator[LocatedRow], str, Path]:
    """(rows, format, folder that relative audio paths start at)."""
    from undersong.corpora import audio_folder

    if source_format == "folder":
        return audio_folder.transcript_rows(path), source_format, Path.cwd() / path
    if source_format == "librispeech":
        return audio_folder.librispeech_rows(path), source_format, Path.cwd() / path
    audio_root = Path.cwd() / (path if path.is_dir() else path.parent)
    table_format = (
        source_format if source_format in TABLE_FORMATS else "parquet-folder" if path.is_dir() else detect_format(path)
    )
    rows = _table_rows(path, table_format)
    if (first_row := next(rows, None)) is None:
        return iter(()), source_format, audio_root
    row_format = (
        source_format if source_format in CHAT_PARSERS else detect_chat_format(first_row[1], columns) or table_format
    )
    return chain([first_row], rows), row_format, audio_root


def _table_rows(path: Path, table_format: str) -> Iterator[LocatedRow]:
    if table_format == "parquet-folder":
        from undersong.corpora.audio_folder import parquet_files

        return chain.from_iterable(parquet_rows(file) for file in parquet_files(path))
    readers: dict[str, Callable[[Path], Iterator[LocatedRow]]]
    readers = {"jsonl": json_rows, "json": json_list, "csv": csv_rows, "parquet": parquet_rows}
    return readers[table_format](path)


def _is_json(line: str) -> bool:
    try:
        strict_json(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_wrapped(path: Path) -> bool:
    """True if a file is one JSON object with exactly one list of objects that is not a conversation."""
    lines = [line for _, line in zip(range(2), (line for line in text_lines(path) if line.strip()))]
    row = strict_json(lines[0]) if len(lines) == 1 else None
    if not isinstance(row, dict) or detect_chat_format(row) or not row.keys().isdisjoint(("id", "audio", "text")):
        return False
    lists = [value for value in row.values() if isinstance(value, list) and value]
    return len(lists) == 1 and all(isinstance(item, dict) for item in lists[0])
