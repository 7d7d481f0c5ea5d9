"""Training data as a trainer takes it: recognition of the file, its samples, and writing it back without some of
them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from undersong.corpora.column_names import HEAD_ROWS, ColumnReading, with_unused_audio
from undersong.corpora.formats import HUB_PREFIX, TABLE_FORMATS, detect_format
from undersong.corpora.registry import PACKAGED_PREFIXES, PRESET_PREFIX, check_corpus_named, corpus_columns, open_corpus
from undersong.corpora.tables import LocatedRow, csv_rows, json_list, json_rows, parquet_rows, strict_json, text_lines
from undersong.corpora.training_rows import (
    LAYOUTS,
    RowColumns,
    TrainingRow,
    UnreadableRow,
    broken_layout,
    detect_layout,
    parse_row,
)
from undersong.types import Quarantined, Sample, UndersongError

DATASET_INFO = "dataset_info.json"
READERS = {"jsonl": json_rows, "json": json_list, "csv": csv_rows, "parquet": parquet_rows}


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """One sample of a training file: `row` is its place in the file, from 0. `spoken` if a request has a clip."""

    id: str
    row: int
    requests: tuple[str, ...]
    answer: str | None = None
    spoken: bool = False
    transcribed: bool = False  # the requests are what is said in the clip, not text typed beside it
    speaker: str | None = None
    source: str | None = None
    group: str | None = None
    answers: tuple[str, ...] = ()  # of a corpus: all replies that count as complying


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """A training file as read.

    Attributes:
        ref: What was named.
        path: The file or folder that the rows are in; None for a data set of the Hub, a preset or a packaged corpus.
        table_format: How the rows are stored: `jsonl`, `json`, `csv`, `parquet`, `folder`, …
        recognized: What the file was recognized as, for readers.
        samples: Samples that ask something.
        unreadable: The others, each with its reason.
        rows: Number of rows.
        other_columns: Columns of a table that were read as nothing but labels.
        layout: Layout of the rows, one of LAYOUTS; None for a corpus.
        entry: LLaMA-Factory's entry of the data set and its name, if there is one.
    """

    ref: str
    path: Path | None
    table_format: str
    recognized: str
    samples: tuple[TrainingSample, ...]
    unreadable: tuple[Quarantined, ...]
    rows: int
    entry: tuple[str, Mapping[str, Any]] | None = None
    other_columns: tuple[str, ...] = ()
    layout: str | None = None


def open_training_file(ref: str, columns: Mapping[str, str] | None = None) -> TrainingFile:
    """Open training data as it is: a trainer's file, a manifest, a table, a folder, `hf:…`, `preset:…` or a package's.

    Args:
        ref: The file, folder or reference. `dataset_info.json` of LLaMA-Factory, or its folder, stands for the one data
            set with a local file that it lists.
        columns: Our field -> column, for tables (see `open_corpus`).

    Raises:
        UndersongError: Nothing is named, nothing is there, or no row asks anything.
    """
    check_corpus_named(ref)
    path, entry = find_dataset(ref)
    if path is None:
        return _from_corpus(ref, None, columns)
    table_format = detect_format(path)
    if table_format not in TABLE_FORMATS:
        return _from_corpus(ref, path, columns)
    rows = READERS[table_format](path)
    head, layout = _read_until_layout(rows, entry) if not columns else ([], None)
    if layout is None:
        return _from_corpus(str(path), path, columns, table_format, entry)
    return _from_rows(ref, path, table_format, layout, chain(head, rows), entry)


def training_columns(ref: str, columns: Mapping[str, str] | None = None) -> ColumnReading:
    """Read the columns that `open_training_file` takes, by the first rows, with notes on what it leaves out.

    A trainer's layout says by its form what is audio and what is text, so only unused audio is noted.

    Args:
        ref: The file, folder or reference.
        columns: Our field -> column, for tables.
    """
    path, entry = find_dataset(ref)
    if path is None or not path.is_file():
        return ColumnReading(dict(columns or {}))
    table_format = detect_format(path)
    if columns or table_format not in TABLE_FORMATS:
        return corpus_columns(str(path), columns)
    rows = READERS[table_format](path)
    head, layout = _read_until_layout(rows, entry)
    if layout is None:
        return corpus_columns(str(path), columns)
    head += islice(rows, max(0, HEAD_ROWS - len(head)))
    plain_rows = [row for _, row in head if isinstance(row, Mapping)]
    reading = with_unused_audio(ColumnReading(), plain_rows, Path.cwd() / path.parent, path)
    if reading.notes and _has_clips(chain(head, rows), layout, _row_columns(entry)):
        return ColumnReading()
    return ColumnReading(notes=reading.notes)


def _has_clips(rows: Iterable[LocatedRow], layout: str, columns: RowColumns | None) -> bool:
    for _, row in rows:
        try:
            if parse_row(row, layout, columns).spoken:
                return True
        except UnreadableRow:
            continue
    return False


def _read_until_layout(
    rows: Iterator[LocatedRow], entry: tuple[str, Mapping[str, Any]] | None
) -> tuple[list[LocatedRow], str | None]:
    """The first rows and their layout: that of the first row, unless its messages are no list; then of a later one."""
    head, fallback = list[LocatedRow](), None
    for located in rows:
        head.append(located)
        if (layout := _layout(located[1], entry)) is not None:
            return head, layout
        if (broken := broken_layout(located[1])) is None:
            return head, None
        fallback = fallback or broken
    return head, fallback


def _from_rows(
    ref: str,
    path: Path,
    table_format: str,
    layout: str,
    rows: Iterator[LocatedRow],
    entry: tuple[str, Mapping[str, Any]] | None,
) -> TrainingFile:
    columns = _row_columns(entry)
    samples, unreadable, count = list[TrainingSample](), list[Quarantined](), 0
    for number, (location, row) in enumerate(rows):
        count += 1
        try:
            parsed = parse_row(row, layout, columns)
        except UnreadableRow as error:
            unreadable.append(Quarantined(location, str(error)))
            continue
        samples.append(_training_sample(path.stem, number, row, parsed))
    if not samples:
        first = unreadable[0]
        raise UndersongError(
            f"{ref} has no row with a request, the first: {first.id} ({first.reason}); check the file."
        )
    name = LAYOUTS[layout]
    if entry is not None:
        name = f"data set {entry[0]} of LLaMA-Factory's {DATASET_INFO} ({entry[1].get('formatting', 'alpaca')})"
    recognized, lost = f"{name}, {table_format}", tuple(unreadable)
    return TrainingFile(ref, path, table_format, recognized, tuple(samples), lost, count, entry, layout=layout)


def _training_sample(stem: str, number: int, row: Mapping[str, Any], parsed: TrainingRow) -> TrainingSample:
    row_id = row.get("id")
    return TrainingSample(
        id=str(row_id) if isinstance(row_id, str | int) and str(row_id).strip() else f"{stem}-{number + 1:06d}",
        row=number,
        requests=tuple(parsed.requests),
        answer=parsed.answer,
        spoken=parsed.spoken,
        speaker=parsed.speaker,
        source=parsed.source,
        group=parsed.group,
    )


def _from_corpus(
    ref: str,
    path: Path | None,
    columns: Mapping[str, str] | None,
    table_format: str | None = None,
    entry: tuple[str, Mapping[str, Any]] | None = None,
) -> TrainingFile:
    """Samples of any other corpus; their texts are transcripts or requests."""
    manifest = open_corpus(ref, columns)
    samples = tuple(_from_sample(number, sample) for number, sample in enumerate(manifest.samples))
    names = {"manifest": "a corpus of undersong", "folder": "a folder of audio", "hf": "a data set of the Hub"}
    recognized = names.get(manifest.format, manifest.format)
    if path is not None and table_format is not None:
        has_audio = any(sample.spoken for sample in samples)
        recognized = f"a table of {'spoken' if has_audio else 'written'} samples, {table_format}"
    if manifest.quarantined:  # which rows the samples are in is not known, so the file cannot be written back
        table_format = None
    labels = sorted({name for sample in manifest.samples for name, _ in sample.labels})
    return TrainingFile(
        ref,
        path,
        table_format or manifest.format,
        recognized,
        samples,
        manifest.quarantined,
        len(samples) + len(manifest.quarantined),
        entry,
        tuple(labels),
    )


def _from_sample(number: int, sample: Sample) -> TrainingSample:
    text = (sample.text or "").strip()
    source = next((value for name in ("source", "dataset") if (value := sample.column(name)) is not None), None)
    return TrainingSample(
        id=sample.id,
        row=number,
        requests=(text,) if text else (),
        answer=sample.answer,
        answers=sample.answers,
        spoken=sample.audio is not None,
        transcribed=sample.audio is not None and bool(text),
        speaker=sample.speaker,
        source=source,
        group=sample.group,
    )


def _layout(row: Any, entry: tuple[str, Mapping[str, Any]] | None) -> str | None:
    """Layout of the first row; LLaMA-Factory's entry decides if there is one."""
    if entry is None:
        return detect_layout(row)
    layouts = {"alpaca": "alpaca", "sharegpt": "sharegpt", "openai": "sharegpt"}  # openai: the same, with other tags
    formatting = entry[1].get("formatting", "alpaca")
    if formatting not in layouts:
        raise UndersongError(
            f"Data set {entry[0]} of {DATASET_INFO} has the formatting {formatting!r}; undersong knows "
            f"{', '.join(layouts)}."
        )
    return layouts[formatting]


def _row_columns(entry: tuple[str, Mapping[str, Any]] | None) -> RowColumns | None:
    """Columns and tags of LLaMA-Factory's entry.

    As in its `src/llamafactory/data/parser.py`, an entry without columns has the default ones, and an entry with
    some has no others.
    """
    if entry is None:
        return None
    columns, tags = (value if isinstance(value := entry[1].get(name), Mapping) else {} for name in ("columns", "tags"))
    names = ("messages", "prompt", "query", "response", "history")
    renamed = {name: str(columns.get(name, "")) for name in names} if columns else {}
    tag_names = {"role": "role_tag", "content": "content_tag", "user": "user_tag", "assistant": "assistant_tag"}
    renamed |= {field: str(tags[name]) for field, name in tag_names.items() if name in tags}
    return RowColumns(**renamed)


def find_dataset(ref: str) -> tuple[Path | None, tuple[str, Mapping[str, Any]] | None]:
    """The file or folder with the rows (None for a reference that is no path), and LLaMA-Factory's entry for it.

    Raises:
        UndersongError: `ref` is a `dataset_info.json` that lists no local file, or several.
    """
    if ref.startswith((*PACKAGED_PREFIXES, PRESET_PREFIX, HUB_PREFIX)):
        return None, None
    path = Path(ref)
    if path.is_dir() and (path / DATASET_INFO).is_file():
        path = path / DATASET_INFO
    if path.name == DATASET_INFO:
        entries = _local_entries(path)
        if len(entries) != 1:
            names = ", ".join(str(path.parent / entry["file_name"]) for entry in entries.values())
            raise UndersongError(
                f"{path} lists {len(entries)} data sets with a local file; "
                + (f"name one of them: {names}." if entries else "name the file of one.")
            )
        name, entry = next(iter(entries.items()))
        return path.parent / entry["file_name"], (name, entry)
    info = path.parent / DATASET_INFO
    if path.is_file() and info.is_file():
        for name, entry in _local_entries(info).items():
            if (path.parent / entry["file_name"]).resolve() == path.resolve():
                return path, (name, entry)
    return path, None


def _local_entries(info: Path) -> dict[str, Mapping[str, Any]]:
    """Entries of a `dataset_info.json` that name a file which exists."""
    try:
        document = strict_json("".join(text_lines(info)))
    except (ValueError, RecursionError) as error:
        raise UndersongError(f"{info} is not JSON ({error}); fix it.") from None
    entries = document.items() if isinstance(document, Mapping) else ()
    return {
        name: entry
        for name, entry in entries
        if isinstance(entry, Mapping)
        and isinstance(file_name := entry.get("file_name"), str)
        and (info.parent / file_name).is_file()
    }
