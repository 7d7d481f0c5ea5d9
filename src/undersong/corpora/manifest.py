"""The `Manifest` of a corpus: build one from rows, read, filter and write manifest files (JSONL or Parquet).

Does not open audio.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.corpora.chat_formats import CHAT_PARSERS
from undersong.corpora.rows import FIELDS, map_columns, parse_text_values, row_from_sample, sample_from_row
from undersong.corpora.tables import LocatedRow, check_manifest_file, json_rows, parquet_rows
from undersong.store.atomic import write_atomic
from undersong.store.parquet import read_parquet, write_parquet
from undersong.suggestions import suggest
from undersong.types import Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

CORPUS, QUARANTINE = "corpus.parquet", "quarantine.parquet"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A corpus as read: its items in order, those already quarantined, and the folder that relative audio paths start
    at.
    """

    samples: tuple[Sample, ...]
    quarantined: tuple[Quarantined, ...]
    root: Path
    format: str = "manifest"  # detected format of the files
    notes: tuple[str, ...] = ()  # on columns that are read under another name, or hold audio and are not read


def read_manifest(path: str | Path, root: str | Path | None = None) -> Manifest:
    """Read `*.jsonl`, `*.parquet`, or the folder of a corpus artifact with its quarantine.

    No audio path may lead out of `root`, links followed (default: any path is allowed). Raises UndersongError with the
    file and the line or row for a missing file, another format, no items, a row that is not an object, a missing or
    repeated id, a field of the wrong type, or a path outside `root`.
    """
    path = Path(path)
    file = path / CORPUS if path.is_dir() else path
    check_manifest_file(file)
    audio_root = Path.cwd() / file.parent
    samples = collect_samples(
        ((location, sample_from_row(row, audio_root, location)) for location, row in _rows(file)), root
    )
    if not samples:
        raise UndersongError(f"Manifest {file} holds no items; add some, one per line.")
    return Manifest(samples, _read_quarantine(file), audio_root)


def collect_samples(
    located_samples: Iterable[tuple[str, Sample]], root: str | Path | None = None
) -> tuple[Sample, ...]:
    """The samples of (location, sample) pairs. Raises UndersongError for a repeated id or audio outside `root`."""
    samples: dict[str, Sample] = {}
    allowed_root = None if root is None else os.path.realpath(root)
    for location, sample in located_samples:
        if sample.id in samples:
            raise UndersongError(f"{location} repeats the id {sample.id!r}; every item needs its own id.")
        if allowed_root is not None and isinstance(sample.audio, str):
            # realpath does not raise for a loop of links, but for a NUL, which no path can hold.
            real_path = "" if "\0" in sample.audio else os.path.realpath(sample.audio)
            if not real_path or os.path.commonpath([allowed_root, real_path]) != allowed_root:
                raise UndersongError(f"{location} names audio outside {root} ({sample.audio}); move it there.")
        samples[sample.id] = sample
    return tuple(samples.values())


def write_manifest(samples: Sequence[Sample], path: str | Path) -> None:
    """Write `*.jsonl` or `*.parquet` atomically. Reading it back gives the same samples, with labels sorted by name.

    Raises UndersongError for audio bytes in JSONL, which cannot hold them.
    """
    path = Path(path)
    rows = [row_from_sample(sample, Path.cwd() / path.parent) for sample in samples]
    if path.suffix == ".jsonl":
        write_atomic(path, "".join(map(_json_line, rows)).encode())
    elif path.suffix == ".parquet":
        write_atomic(path, _parquet_bytes(_arrow_table(rows)))
    else:
        raise UndersongError(f"{path} is neither .jsonl nor .parquet; choose one of these names.")


def write_corpus(samples: Sequence[Sample], quarantined: Sequence[Quarantined], folder: str | Path) -> None:
    """Write the files of a corpus artifact: `corpus.parquet` and `quarantine.parquet` (id, reason)."""
    import pyarrow as pa

    write_manifest(samples, Path(folder) / CORPUS)
    rows = [{"id": item.id, "reason": item.reason} for item in quarantined]
    schema = pa.schema({"id": pa.string(), "reason": pa.string()})
    write_atomic(Path(folder) / QUARANTINE, _parquet_bytes(pa.Table.from_pylist(rows, schema)))


def audio_files(folder: str | Path) -> list[str]:
    """Audio paths of a corpus artifact, without reading its items."""
    import pyarrow as pa

    file = Path(folder) / CORPUS
    column = read_parquet(file, columns=["audio"]).column("audio")
    if pa.types.is_struct(column.type):
        column = pa.chunked_array([chunk.field("path") for chunk in column.chunks], pa.string())
    paths = column.drop_null().to_pylist() if pa.types.is_string(column.type) else []
    audio_root = str(Path.cwd() / file.parent)
    return [os.path.join(audio_root, path) for path in paths]


def filter_samples(samples: Sequence[Sample], filters: Mapping[str, str | Sequence[str]]) -> tuple[Sample, ...]:
    """The samples that have one of the given values in every named column (speaker, group or a label), in order.

    Raises UndersongError for a column or a value that no sample has, and if nothing is left.
    """
    matching = tuple(samples)
    columns = {"speaker", "group"} | {name for sample in samples for name, _ in sample.labels}
    for column, requested in filters.items():
        values = {requested} if isinstance(requested, str) else set(requested)
        if column not in columns:
            raise UndersongError(f"No sample has a column {column!r}; {suggest(column, sorted(columns))}.")
        present_values = {value for sample in samples if (value := sample.column(column)) is not None}
        if absent := sorted(values - present_values):
            raise UndersongError(f"No sample has {column} {absent[0]!r}; {suggest(absent[0], sorted(present_values))}.")
        matching = tuple(sample for sample in matching if sample.column(column) in values)
    if not matching:
        raise UndersongError(f"No sample is left after the filter {dict(filters)}; filter by less.")
    return matching


def _rows(file: Path) -> Iterator[LocatedRow]:
    """(location, row) of every item."""
    if file.suffix.lower() == ".jsonl":
        return json_rows(file)
    if file.suffix.lower() == ".parquet":
        return parquet_rows(file, required_column="id")
    raise UndersongError(f"Manifest {file} is neither .jsonl nor .parquet; convert it, one item per line or row.")


def _json_line(row: dict[str, Any]) -> str:
    if isinstance(row["audio"], bytes):
        raise UndersongError(f"item {row['id']!r} holds audio as bytes, which JSONL cannot keep; write .parquet.")
    return json.dumps({k: v for k, v in row.items() if v not in (None, [])}, ensure_ascii=False, allow_nan=False) + "\n"


def _read_quarantine(file: Path) -> tuple[Quarantined, ...]:
    quarantine_file = file.with_name(QUARANTINE)
    if file.name != CORPUS or not quarantine_file.is_file():
        return ()
    return tuple(Quarantined(row["id"], row["reason"]) for _, row in parquet_rows(quarantine_file))


def _arrow_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Fixed columns first, then labels as strings. Audio is paths, bytes, or (mixed) Hugging Face's struct of both."""
    import pyarrow as pa

    audio_types = {type(row["audio"]) for row in rows} - {type(None)}
    audio: Any = pa.large_binary() if audio_types == {bytes} else pa.string()
    if len(audio_types) > 1:
        audio = pa.struct({"bytes": pa.large_binary(), "path": pa.string()})
        rows = [{**row, "audio": _audio_struct(row["audio"])} for row in rows]
    column_types = {"audio": audio, "answers": pa.list_(pa.string()), "seconds": pa.float64()}
    labels = sorted({name for row in rows for name in row} - set(FIELDS))
    schema = pa.schema([(name, column_types.get(name, pa.string())) for name in (*FIELDS, *labels)])
    return pa.Table.from_pylist(rows, schema)


def _audio_struct(audio: str | bytes | None) -> dict[str, Any] | None:
    return None if audio is None else {"bytes" if isinstance(audio, bytes) else "path": audio}


def _parquet_bytes(table: pa.Table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    write_parquet(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def manifest_from_rows(
    rows: Iterable[LocatedRow],
    row_format: str,
    audio_root: Path,
    id_prefix: str,
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    source: Path | None = None,
    known_names: bool = True,
) -> Manifest:
    """Build a Manifest from located rows. Conversations are converted to plain fields first.

    Args:
        rows: (location, row) of every item.
        row_format: Format of the rows; one of CHAT_PARSERS for conversations.
        audio_root: Folder that relative audio paths start at.
        id_prefix: Prefix of the ids of rows without one.
        columns: Our field -> column of the rows.
        root: Folder that no audio path may lead out of.
        source: Name of the whole in error messages.
        known_names: Read columns that have a common name of the field, such as `transcript`, as our fields.
    """
    from undersong.corpora.column_names import HEAD_ROWS, ColumnReading, read_column_names

    source_name = audio_root / id_prefix if source is None else source
    reading = ColumnReading(dict(columns or {}))
    if known_names:
        rows = iter(rows)
        head = list(islice(rows, HEAD_ROWS))
        reading = read_column_names([row for _, row in head], row_format, columns or {}, audio_root, source_name)
        rows = chain(head, rows)
    columns, quarantined, mapped_fields = dict(reading.columns), list[Quarantined](), set[str]()
    present_columns = set[str]()  # of the rows as they are, for a message

    def located_samples() -> Iterator[tuple[str, Sample]]:
        assigns_ids: bool | None = None
        for number, (location, row) in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise UndersongError(f"{location} is not an object with named fields; write one JSON object per line.")
            default_id = f"{id_prefix}-{number:06d}"
            if row_format in CHAT_PARSERS:
                try:
                    row = CHAT_PARSERS[row_format](row)
                except ValueError as error:
                    quarantined.append(Quarantined(str(row.get("id") or default_id), str(error)))
                    continue
            if columns:
                present_columns.update(name for name, value in row.items() if value is not None)
            row = map_columns(row, columns, mapped_fields)
            if row_format in ("csv", "folder"):
                row = parse_text_values(row, location)
            if assigns_ids is None:  # all or none: if the first row has an id, a later row without one is an error
                assigns_ids = row.get("id") is None and "id" not in columns
            if assigns_ids and row.get("id") is None:  # a row that has an id keeps it
                row["id"] = default_id
            yield location, sample_from_row(row, audio_root, location)

    usable = collect_samples(located_samples(), root)
    if not usable and not quarantined:
        raise UndersongError(f"{source_name} holds no items; add some, one per line.")
    if usable and (missing := sorted(set(columns) - mapped_fields)):
        column = columns[missing[0]]
        raise UndersongError(
            f"No item of {source_name} has a column {column!r}; {suggest(column, sorted(present_columns))}."
        )
    return Manifest(usable, tuple(quarantined), audio_root, row_format, reading.notes)
