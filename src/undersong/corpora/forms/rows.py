"""One row of a manifest as a Sample, and back.  Knows columns and their types; does not know files."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from undersong.types import Sample, UndersongError

FIELDS = ("id", "audio", "text", "answer", "answers", "speaker", "group", "seconds", "pcm_hash")
HALVES = re.compile("[\ud800-\udfff]")  # of characters: lone surrogates, which no UTF-8 can hold


def sample_of(row: Any, root: Path, place: str) -> Sample:
    """A row as a Sample.  Relative audio paths start at `root`; other columns become labels, sorted by name.

    Null and absent are the same.  UndersongError names `place` (line or row, and file) and what is wrong there.
    """
    if not isinstance(row, Mapping):
        raise UndersongError(f"{place} is not an object with named fields; write one JSON object a line.")
    text = {name: _text(row.get(name), name, place) for name in ("text", "answer", "speaker", "group", "pcm_hash")}
    labels = {name: _label(row[name], name, place) for name in sorted(row) if name not in FIELDS}
    return Sample(
        id=_id(row.get("id"), place),
        audio=_audio(row.get("audio"), root, place),
        answers=_answers(row.get("answers"), place),
        seconds=_seconds(row.get("seconds"), place),
        labels=tuple((name, value) for name, value in labels.items() if value is not None),
        **text,
    )


def row_of(sample: Sample, root: Path) -> dict[str, Any]:
    """A Sample as a row that `sample_of` reads back; audio below `root` is written relative to it, so both can move."""
    labels = dict(sample.labels)
    if len(labels) < len(sample.labels) or not labels.keys().isdisjoint(FIELDS):
        raise UndersongError(f"item {sample.id!r} has labels that share a column name; rename one of {sorted(labels)}.")
    row = {name: getattr(sample, name) for name in FIELDS}
    if isinstance(sample.audio, str):
        path, start = os.path.join(os.getcwd(), sample.audio), os.path.join(root, "")
        row["audio"] = path.removeprefix(start)  # not by Path: a pool has a million of them
    return {**row, "answers": list(sample.answers), **labels}


def _text(value: Any, name: str, place: str) -> str | None:
    """Strings and whole numbers (ids, answers such as 42) as they would be written; nothing else is guessed at."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise UndersongError(f"{place}: {name} is {_brief(value)}; write a string.")
    if value is not None and HALVES.search(value):
        raise UndersongError(f"{place}: {name} holds half a character (a lone surrogate); write valid Unicode.")
    return value


def _id(value: Any, place: str) -> str:
    name = _text(value, "id", place)
    if not name or "\n" in name:  # a selection's hash joins ids by line breaks
        raise UndersongError(f"{place} has no usable id ({_brief(value)}); give every item one, without line breaks.")
    return name


def _audio(value: Any, root: Path, place: str) -> str | bytes | None:
    if isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:  # the layout of Hugging Face data sets
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return value
    if value == "" or not isinstance(value, str | None):
        raise UndersongError(f"{place}: audio is {_brief(value)}; write a path, or leave the field out.")
    path = _text(value, "audio", place)
    return None if path is None else str(root / path)


def _answers(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list | None):
        raise UndersongError(f"{place}: answers is {_brief(value)}; write a list of strings.")
    answers = tuple(_text(item, "answers", place) for item in value or ())
    if None in answers:
        raise UndersongError(f"{place}: answers holds null; write a list of strings.")
    return tuple(answer for answer in answers if answer is not None)


def _seconds(value: Any, place: str) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and math.isfinite(value) and value >= 0):
        raise UndersongError(f"{place}: seconds is {_brief(value)}; write a number of seconds, or leave the field out.")
    return None if value is None else float(value)


def _label(value: Any, name: str, place: str) -> str | None:
    """A further column as text: strings as they are, everything else as JSON would write it."""
    if value is None or isinstance(value, str):
        return _text(value, name, place)
    if isinstance(value, bytes):
        raise UndersongError(f"{place}: column {name!r} holds bytes, which is no label; remove it.")
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _brief(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
