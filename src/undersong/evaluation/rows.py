"""Tables that others wrote, row by row: Parquet, JSON lines or a log of inspect_ai, with the place of every fault.

Knows no columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from undersong.types import UndersongError

EvaluationRow = Mapping[str, object]
TABLE_NAMES = {"verdict": "verdicts.parquet", "reply": "replies.parquet"}


def read_rows(path: Path, kind: str) -> Iterator[tuple[str, EvaluationRow]]:
    """(where, row) of a `.parquet`, `.jsonl` or `.eval` file, rows counted from 1; `kind`: verdict or reply."""
    if path.is_dir():
        raise UndersongError(f"{path} is a folder; give the {kind} file in it, such as {path / TABLE_NAMES[kind]}.")
    if not path.is_file():
        raise UndersongError(f"There is no {kind} file {path}; check the path.")
    if path.suffix == ".eval":
        from undersong.evaluation.table_rows import log_rows

        return log_rows(path, kind)
    readers = {".parquet": _parquet_rows, ".jsonl": _jsonl_rows}
    if path.suffix not in readers:
        raise UndersongError(
            f"{path} is not a .parquet, .jsonl or .eval file; give the {kind} table in one of these forms."
        )
    return readers[path.suffix](path)


def text_field(row: EvaluationRow, name: str, default: str, location: str) -> str:
    """A string; whole numbers are taken as their digits, because ids often are."""
    value = row.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UndersongError(f"{location} has {name} {value!r}; give a string.")
    return str(value)


def number_field(row: EvaluationRow, name: str, location: str) -> float | None:
    """A number, or None where there is none."""
    value = row.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise UndersongError(f"{location} has {name} {value!r}; give a number or leave it out.")
    try:
        return None if value is None else float(value)
    except OverflowError as error:  # JSON's whole numbers have no end
        raise UndersongError(f"{location} has a {name} beyond 1e308; give a number or leave it out.") from error


def bool_field(row: EvaluationRow, name: str, location: str) -> bool | None:
    """True, False, or None where the row does not say."""
    value = row.get(name)
    if value is not None and not isinstance(value, bool):
        raise UndersongError(f"{location} has {name} {value!r}; give true or false.")
    return value


def _parquet_rows(path: Path) -> Iterator[tuple[str, EvaluationRow]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise UndersongError(f"{path} cannot be read as Parquet ({error}); write it again.") from error
    for number, row in enumerate(rows, start=1):
        yield f"{path} row {number}", row


def _jsonl_rows(path: Path) -> Iterator[tuple[str, EvaluationRow]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UndersongError(f"{path} cannot be read as UTF-8 text ({error}); write it again.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        location = f"{path} row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # a number of too many digits, nesting without end
            raise UndersongError(
                f"{location} is not JSON that can be read ({error}); write one object a line."
            ) from error
        if not isinstance(row, dict):
            raise UndersongError(f"{location} is not a JSON object; write one object a line.")
        yield location, row
