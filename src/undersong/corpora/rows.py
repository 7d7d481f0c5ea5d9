"""Conversion between manifest rows and `Sample`: field validation, column mapping and string parsing of CSV values.

Does not open files.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from undersong.corpora.tables import strict_json
from undersong.types import Sample, UndersongError

FIELDS = ("id", "audio", "text", "answer", "answers", "speaker", "group", "seconds", "pcm_hash")
LONE_SURROGATES = re.compile("[\ud800-\udfff]")  # halves of characters, which UTF-8 cannot hold


def sample_from_row(row: Any, root: Path, location: str) -> Sample:
    """Convert a row to a Sample. Relative audio paths start at `root`; other columns become labels, sorted by name.

    A null field counts as absent. Raises UndersongError with `location` (line or row, and file) and the problem.
    """
    if not isinstance(row, Mapping):
        raise UndersongError(f"{location} is not an object with named fields; write one JSON object per line.")
    text_fields = {
        name: _parse_text(row.get(name), name, location) for name in ("text", "answer", "speaker", "group", "pcm_hash")
    }
    labels = {name: _parse_label(row[name], name, location) for name in sorted(row) if name not in FIELDS}
    return Sample(
        id=_parse_id(row.get("id"), location),
        audio=_parse_audio(row.get("audio"), root, location),
        answers=_parse_answers(row.get("answers"), location),
        seconds=_parse_seconds(row.get("seconds"), location),
        labels=tuple((name, value) for name, value in labels.items() if value is not None),
        **text_fields,
    )


def row_from_sample(sample: Sample, root: Path) -> dict[str, Any]:
    """Convert a Sample to a row for `sample_from_row`.

    Audio below `root` is written as a relative path, so that both can be moved together.
    """
    labels = dict(sample.labels)
    if len(labels) < len(sample.labels) or not labels.keys().isdisjoint(FIELDS):
        raise UndersongError(f"item {sample.id!r} has labels that share a column name; rename one of {sorted(labels)}.")
    row = {name: getattr(sample, name) for name in FIELDS}
    if isinstance(sample.audio, str):
        path, root_prefix = os.path.join(os.getcwd(), sample.audio), os.path.join(root, "")
        row["audio"] = path.removeprefix(root_prefix)  # faster than Path, for a pool of a million clips
    return {**row, "answers": list(sample.answers), **labels}


def _parse_text(value: Any, name: str, location: str) -> str | None:
    """Strings as they are and whole numbers (ids, answers such as 42) as text; anything else is an error."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise UndersongError(f"{location}: {name} is {_shorten_repr(value)}; write a string.")
    if value is not None and LONE_SURROGATES.search(value):
        raise UndersongError(f"{location}: {name} holds half a character (a lone surrogate); write valid Unicode.")
    if value is not None and "\0" in value and name != "audio":  # no path with one is found
        raise UndersongError(
            f"{location}: {name} holds a NUL character, as text in a damaged file does; write the file again."
        )
    return value


def _parse_id(value: Any, location: str) -> str:
    name = _parse_text(value, "id", location)
    if not name or "\n" in name:  # a selection's hash joins ids by line breaks
        raise UndersongError(
            f"{location} has no usable id ({_shorten_repr(value)}); give every item one, without line breaks."
        )
    return name


def _parse_audio(value: Any, root: Path, location: str) -> str | bytes | None:
    if isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:  # the layout of Hugging Face data sets
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return value
    if value == "" or not isinstance(value, str | None):
        raise UndersongError(f"{location}: audio is {_shorten_repr(value)}; write a path, or leave the field out.")
    path = _parse_text(value, "audio", location)
    return None if path is None else str(root / path)


def _parse_answers(value: Any, location: str) -> tuple[str, ...]:
    if not isinstance(value, list | None):
        raise UndersongError(f"{location}: answers is {_shorten_repr(value)}; write a list of strings.")
    answers = tuple(_parse_text(item, "answers", location) for item in value or ())
    if None in answers:
        raise UndersongError(f"{location}: answers holds null; write a list of strings.")
    return tuple(answer for answer in answers if answer is not None)


def _parse_seconds(value: Any, location: str) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and math.isfinite(value) and value >= 0):
        raise UndersongError(
            f"{location}: seconds is {_shorten_repr(value)}; write a number of seconds, or leave the field out."
        )
    return None if value is None else float(value)


def _parse_label(value: Any, name: str, location: str) -> str | None:
    """Value of another column as text: strings as they are, everything else as JSON."""
    if value is None or isinstance(value, str):
        return _parse_text(value, name, location)
    if isinstance(value, bytes):
        raise UndersongError(f"{location}: column {name!r} holds bytes, which cannot be a label; remove it.")
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _shorten_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse_text_values(row: dict[str, Any], location: str) -> dict[str, Any]:
    """Parse the text values of a CSV row: `seconds` as a number, `answers` as a JSON list."""
    out = dict(row)
    try:
        if isinstance(out.get("seconds"), str):
            out["seconds"] = float(out["seconds"])
        if isinstance(out.get("answers"), str):
            out["answers"] = strict_json(out["answers"])
    except ValueError as error:
        raise UndersongError(f"{location}: {error}; write seconds as a number and answers as a JSON list.") from error
    return out


def map_columns(row: Mapping[str, Any], columns: Mapping[str, str], mapped_fields: set[str]) -> dict[str, Any]:
    """Rename columns to our fields and add the names found to `mapped_fields`.

    A column of ours that a mapped one replaces is kept as `source_NAME`.
    """
    out = dict(row)
    for field in columns:
        if field in out and columns[field] != field:
            out[f"source_{field}"] = out.pop(field)
    for field, column in columns.items():
        value, is_whole_column = _column_value(row, column)
        if value is None:
            continue
        mapped_fields.add(field)
        out[field] = value
        # One column may serve two fields; a column with the name of a field was renamed above.
        if is_whole_column and column != field:
            out.pop(column if column not in columns else f"source_{column}", None)
    return out


def _column_value(row: Mapping[str, Any], column: str) -> tuple[Any, bool]:
    """(value of a column or a dotted path, True if it is a whole column)."""
    if column in row:
        return row[column], True
    return _nested_value(row, column.split(".")), False


def _nested_value(value: Any, steps: list[str]) -> Any:
    """Value at a path: names in objects, numbers in lists, `*` for all items of a list. None if there is none."""
    if not steps:
        return value
    step, remaining_steps = steps[0], steps[1:]
    if isinstance(value, Mapping) and step in value:
        return _nested_value(value[step], remaining_steps)
    if isinstance(value, list) and step == "*":
        return [nested for item in value if (nested := _nested_value(item, remaining_steps)) is not None]
    if isinstance(value, list) and step.isdigit() and int(step) < len(value):
        return _nested_value(value[int(step)], remaining_steps)
    return None
