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
LONE_SURROGATES = re.compile("[\ud800-\udfff]")  # of characters: lone surrogates, which no UTF-8 can hold


def sample_from_row(row: Any, root: Path, location: str) -> Sample:
    """A row as a Sample.  Relative audio paths start at `root`; other columns become labels, sorted by name.

    Null and absent are the same.  UndersongError names `place` (line or row, and file) and what is wrong there.
    """
    if not isinstance(row, Mapping):
        raise UndersongError(f"{location} is not an object with named fields; write one JSON object a line.")
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
    """A Sample as a row that `sample_of` reads back; audio below `root` is written relative to it, so both can move."""
    labels = dict(sample.labels)
    if len(labels) < len(sample.labels) or not labels.keys().isdisjoint(FIELDS):
        raise UndersongError(f"item {sample.id!r} has labels that share a column name; rename one of {sorted(labels)}.")
    row = {name: getattr(sample, name) for name in FIELDS}
    if isinstance(sample.audio, str):
        path, root_prefix = os.path.join(os.getcwd(), sample.audio), os.path.join(root, "")
        row["audio"] = path.removeprefix(root_prefix)  # not by Path: a pool has a million of them
    return {**row, "answers": list(sample.answers), **labels}


def _parse_text(value: Any, name: str, location: str) -> str | None:
    """Strings and whole numbers (ids, answers such as 42) as they would be written; nothing else is guessed at."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise UndersongError(f"{location}: {name} is {_shorten_repr(value)}; write a string.")
    if value is not None and LONE_SURROGATES.search(value):
        raise UndersongError(f"{location}: {name} holds half a character (a lone surrogate); write valid Unicode.")
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
    """A further column as text: strings as they are, everything else as JSON would write it."""
    if value is None or isinstance(value, str):
        return _parse_text(value, name, location)
    if isinstance(value, bytes):
        raise UndersongError(f"{location}: column {name!r} holds bytes, which is no label; remove it.")
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _shorten_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse_text_values(row: dict[str, Any], location: str) -> dict[str, Any]:
    """A row of a CSV, where all is text: seconds as the number, answers as the JSON list they are written as."""
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
    """The row under our names.  A column of ours that a mapped one takes the place of stays as `source_NAME`."""
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
        if (
            is_whole_column and column != field
        ):  # the same column may serve two fields; what was an own name is put away above
            out.pop(column if column not in columns else f"source_{column}", None)
    return out


def _column_value(row: Mapping[str, Any], column: str) -> tuple[Any, bool]:
    """(the value under a name or a dotted path, whether it is the whole column)."""
    if column in row:
        return row[column], True
    return _nested_value(row, column.split(".")), False


def _nested_value(value: Any, steps: list[str]) -> Any:
    """What a path leads to: names in objects, numbers in lists, `*` for all of a list; None where it leads nowhere."""
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
