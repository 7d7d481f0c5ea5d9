"""Detects the format of a file or folder by its content and opens it as a `Manifest`.

Malformed files raise an error with the line number; unusable items are quarantined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from undersong.corpora.chat_formats import CHAT_PARSERS, detect_chat_format
from undersong.corpora.manifest import CORPUS, Manifest, manifest_from_rows, read_manifest
from undersong.corpora.rows import FIELDS
from undersong.corpora.tables import LocatedRow, csv_rows, json_list, json_rows, parquet_rows, strict_json, text_lines
from undersong.suggestions import suggest
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
) -> Manifest:
    """The corpus at `path`, whatever it is written in; `Manifest.form` says what it was taken for.

    Files: JSONL, a JSON list, CSV/TSV, Parquet, and in any of them plain rows or conversations (`messages`,
    `sharegpt`, `kimi`, `alpaca`, `query`).  Folders: a corpus artifact, audio with a transcript file (`folder`),
    LibriSpeech, Parquet files as Hugging Face keeps them.  `hf:OWNER/NAME?config=…&split=…&revision=…`: a data set of
    the Hub, streamed.

    format: one of FORMATS instead of what the content says.  columns: our field -> their column (`a.b.0`, `a.*.b` lead
    into objects and lists); their other columns stay under their own names.  root: the folder no audio path may lead
    out of.  Where the first row has no id, rows without one get `FILE-NUMBER`, by their order.
    UndersongError names the file, and the line or row: unknown form, missing column, repeated id, wrong type.
    """
    if format is not None and format not in FORMATS:
        raise UndersongError(f"No format is called {format!r}; {suggest(format, FORMATS)}.")
    if columns and (unknown := sorted(set(columns) - set(FIELDS))):
        raise UndersongError(f"The column map names {unknown[0]!r}, no field; {suggest(unknown[0], FIELDS)}.")
    if str(path).startswith(HUB_PREFIX) or format == "hf":
        from undersong.corpora.hf_hub import open_hub

        return open_hub(str(path), columns)
    source_format = format or detect_format(Path(path))
    if source_format == "manifest":
        if columns:
            raise UndersongError(f"{path} is a corpus artifact, whose columns have their names; leave the map out.")
        return read_manifest(path, root)
    rows, row_format, audio_root = _located_rows(Path(path), source_format, columns or {})
    return manifest_from_rows(rows, row_format, audio_root, Path(path).stem, columns, root, Path(path))


def detect_format(path: Path) -> str:
    """What a file or folder is, by what is in it.  UndersongError where it is nothing known."""
    from undersong.corpora.audio_folder import detect_folder_format

    if path.is_dir():
        return "manifest" if (path / CORPUS).is_file() else detect_folder_format(path)
    if not path.is_file():  # a pipe or device would be waited for
        raise UndersongError(f"There is no manifest {path}; check the path.")
    with path.open("rb") as file:
        if file.read(4) == PARQUET_MAGIC:
            return "parquet"
    first_line = next((line.strip() for line in text_lines(path) if line.strip()), "")
    if first_line.startswith("{") and (path.suffix.lower() == ".jsonl" or _is_json(first_line)):
        # An object in one line may be a whole file: with a list in it and nothing after it, it is.
        return "json" if _is_json(first_line) and _is_wrapped(path) else "jsonl"
    if first_line.startswith(("{", "[")):
        return "json"
    if not first_line:
        raise UndersongError(f"Manifest {path} holds no items; add some, one a line.")
    return "csv"


def _located_rows(path: Path, source_format: str, columns: Mapping[str, str]) -> tuple[Iterator[LocatedRow], str, Path]:
    """(rows, form, folder relative audio starts at)."""
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
    """Whether a file is one object with one list of objects in it, which is no conversation."""
    lines = [line for _, line in zip(range(2), (line for line in text_lines(path) if line.strip()))]
    row = strict_json(lines[0]) if len(lines) == 1 else None
    if not isinstance(row, dict) or detect_chat_format(row) or not row.keys().isdisjoint(("id", "audio", "text")):
        return False
    lists = [value for value in row.values() if isinstance(value, list) and value]
    return len(lists) == 1 and all(isinstance(item, dict) for item in lists[0])
