"""Column names of the field: which column of a table is the speech and which the text, where no column has our name.

Looks at the first rows only, and opens no audio.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from undersong.corpora.chat_formats import CHAT_PARSERS
from undersong.corpora.rows import FIELDS, map_columns
from undersong.types import Sample, UndersongError

HEAD_ROWS = 100  # rows that are looked at: CSV rows have no empty fields, so one row does not show all columns
AUDIO_SUFFIXES = frozenset([".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".m4a"])
AUDIO_COLUMNS = (  # NeMo, Common Voice, Hugging Face audio folders, ESPnet, and what people write
    "audio_filepath", "audio_path", "audio_file", "file_name", "filename", "file_path", "filepath", "wav", "wav_path",
    "clip", "path", "file", "speech",
)  # fmt: skip
TRANSCRIPT_COLUMNS = (  # what is said in a clip
    "transcript", "transcription", "transcriptions", "sentence", "normalized_text", "raw_text",
)  # fmt: skip
REQUEST_COLUMNS = (  # a request, as harm sets and instruction data have it; JailbreakBench has both Goal and Behavior
    "prompt", "goal", "behavior", "forbidden_prompt", "request", "question", "query",
)  # fmt: skip
TYPED_COLUMNS = ("instruction",)  # beside a clip it is typed, and not what the clip says
MAX_COLUMNS_NAMED = 12
RENAME_ADVICE = "rename one of them to audio or text"  # of commands that take no map of columns
COLUMN_ADVICE = "say which one it is, such as --column text=COLUMN, or rename it to audio or text"
STUDY_COLUMN_ADVICE = "say which one it is by `columns` in the study, or rename it to audio or text"


@dataclass(frozen=True, slots=True)
class ColumnReading:
    """Column map of a table, with a line for each thing about it that a user should know."""

    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unused_audio: str | None = None  # a column of audio files in a table that has no audio otherwise


def read_column_names(
    rows: Sequence[Any], row_format: str, columns: Mapping[str, str], audio_root: Path, source: str | Path
) -> ColumnReading:
    """Decide which columns are the audio and the text.

    A column of our name or of the given map always comes first. A known name is taken for audio only if it holds audio:
    bytes, or a path with the suffix of an audio format.

    Args:
        rows: The first rows as they are in the file.
        row_format: Format of the rows; conversations say by their form what is audio and what is text.
        columns: The given map of our field to a column.
        audio_root: Folder that relative audio paths start at.
        source: Name of the table in the notes.
    """
    plain_rows = [row for row in rows if isinstance(row, Mapping)]
    if row_format in CHAT_PARSERS:
        if "audio" in columns:  # the map leaves no audio out
            return ColumnReading(dict(columns))
        parsed_rows = [parsed for row in plain_rows if (parsed := _parse(row, row_format)) is not None]
        return with_unused_audio(ColumnReading(dict(columns)), parsed_rows, audio_root, source)
    known: dict[str, str] = dict(columns)
    reserved = {*columns.values(), *FIELDS}
    if "audio" not in known and not _has(plain_rows, "audio"):
        audio_column = _first_column(plain_rows, AUDIO_COLUMNS, reserved, _is_audio)
        known |= {} if audio_column is None else {"audio": audio_column}
    if "text" not in known and not _has(plain_rows, "text"):
        is_spoken = "audio" in known or _has(plain_rows, "audio")
        names = (*TRANSCRIPT_COLUMNS, *REQUEST_COLUMNS, *(() if is_spoken else TYPED_COLUMNS))
        text_column = _first_column(plain_rows, names, {*reserved, *known.values()}, _is_text)
        known |= {} if text_column is None else {"text": text_column}
    guessed = {name: column for name, column in known.items() if name not in columns}
    notes: tuple[str, ...] = ()
    if guessed:
        options = " ".join(f"{name}=COLUMN" for name in guessed)
        notes = (f"{source}: {columns_clause(guessed)}; a column map ({options}) names others.",)
    mapped_rows = [map_columns(row, known, set()) for row in plain_rows]
    return with_unused_audio(ColumnReading(known, notes), mapped_rows, audio_root, source)


def columns_clause(columns: Mapping[str, str]) -> str:
    """The clause `column 'clip' as audio and column 'prompt' as text`, from our field -> column."""
    return " and ".join(f"column {column!r} as {name}" for name, column in columns.items())


def check_audio_or_text(ref: str, samples: Sequence[Sample], advice: str = RENAME_ADVICE) -> None:
    """Check that some sample has audio or text, and else name the columns that it has.

    `advice` is what the command takes to say which column that is.

    Raises:
        UndersongError: No sample has either.
    """
    if not samples or any(sample.audio is not None or sample.text for sample in samples):
        return
    raise UndersongError(f"No item of {ref} has audio or text; {columns_sentence(samples)}; {advice}.")


def columns_sentence(samples: Iterable[Sample]) -> str:
    """The clause `it has the columns …`, with all columns that some sample has."""
    names = dict.fromkeys(
        name
        for sample in samples
        for name in (
            *(name for name in FIELDS if name != "id" and getattr(sample, name) not in (None, ())),
            *(name for name, _ in sample.labels),
        )
    )
    shown = ", ".join(list(names)[:MAX_COLUMNS_NAMED]) + (", …" if len(names) > MAX_COLUMNS_NAMED else "")
    return f"it has the columns {shown}" if names else "it has no column but ids"


def _parse(row: Mapping[str, Any], row_format: str) -> Mapping[str, Any] | None:
    try:
        return CHAT_PARSERS[row_format](row)
    except ValueError:
        return None


def _has(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    return any(row.get(column) not in (None, "") for row in rows)


def _first_column(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], reserved: set[str], fits: Callable[[Any], bool]
) -> str | None:
    """First of the known names that is a column whose values all fit; case does not matter."""
    present = dict.fromkeys(column for row in rows for column in row if column not in reserved)
    for name in names:
        for column in present:
            values = [value for row in rows if (value := row.get(column)) not in (None, "")]
            if str(column).lower() == name and values and all(map(fits, values)):
                return str(column)
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_audio(value: Any) -> bool:
    """True for bytes, the layout of Hugging Face audio, and a path with the suffix of an audio format."""
    if isinstance(value, Mapping):
        return bool(value) and value.keys() <= {"bytes", "path"}
    if not isinstance(value, str):
        return isinstance(value, bytes)
    return os.path.splitext(value)[1].lower() in AUDIO_SUFFIXES


def _names_audio_file(value: Any, audio_root: Path) -> bool:
    """True for audio that is certainly there: a file with the suffix of an audio format, or Hugging Face's layout."""
    if not isinstance(value, str):
        return isinstance(value, Mapping) and bool(value) and _is_audio(value)
    return _is_audio(value) and "\0" not in value and (audio_root / value).is_file()


def with_unused_audio(
    reading: ColumnReading, rows: Sequence[Mapping[str, Any]], audio_root: Path, source: str | Path
) -> ColumnReading:
    """Add notes on audio that the reading leaves out: a column that names files, or files beside the table.

    Args:
        reading: The reading so far.
        rows: The first rows, under our names of fields.
        audio_root: Folder that relative audio paths start at.
        source: Name of the table in the notes.
    """
    if _has(rows, "audio"):
        return reading
    columns = dict.fromkeys(column for row in rows for column in row if column not in FIELDS)
    for column in columns:
        values = [value for row in rows if (value := row.get(column)) not in (None, "")]
        if values and all(_names_audio_file(value, audio_root) for value in values):
            note = (
                f"{source}: column {column!r} names audio files and is not used; a column map (audio={column}) reads "
                "them."
            )
            return ColumnReading(reading.columns, (*reading.notes, note), str(column))
    if count := _audio_files_beside(audio_root, source):
        note = f"{source} is read as text alone, and {count} audio files lie beside it; no column names them."
        return ColumnReading(reading.columns, (*reading.notes, note), reading.unused_audio)
    return reading


def _audio_files_beside(audio_root: Path, source: str | Path) -> int:
    """Number of audio files in the folder of a table; 0 for a table that is no file of that folder."""
    if not Path(source).is_file():
        return 0
    with os.scandir(audio_root) as entries:
        return sum(os.path.splitext(entry.name)[1].lower() in AUDIO_SUFFIXES for entry in entries)
