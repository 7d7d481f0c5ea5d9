"""Files of a check: the artifact in a store, and the folder of `--out`."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from undersong.escaping import escaped_json
from undersong.screening.check.result import AxisCheck, CheckResult, RankedSample, RehearsalCheck
from undersong.statistics.bootstrap import Interval
from undersong.statistics.rates import Rate
from undersong.store.atomic import write_atomic
from undersong.store.parquet import read_parquet, write_parquet
from undersong.types import UndersongError

VERDICT_FILE, RANKED_CSV, RANKED_JSONL = "check.json", "ranked.csv", "ranked.jsonl"
RECORD_FILE, RANKED_PARQUET = "result.json", "ranked.parquet"  # in a store
RANKED_COLUMNS = tuple(field.name for field in fields(RankedSample))


def check_check_folder(out: Path) -> None:
    """Check that a folder can be written: it is new, empty, or holds an earlier check.

    Raises:
        UndersongError: The folder is a file, or holds something else.
    """
    if not out.exists():
        return
    names = [path.name for path in out.iterdir()] if out.is_dir() else [out.name]
    if foreign := sorted(set(names) - {VERDICT_FILE, RANKED_CSV, RANKED_JSONL}):
        raise UndersongError(f"{out} exists and is not a check (it holds {foreign[0]}); name a new folder with --out.")


def publish_check(result: CheckResult, out: Path) -> None:
    """Write `check.json`, `ranked.csv` and `ranked.jsonl` to a folder, which may hold an earlier check.

    Raises:
        UndersongError: The folder is a file, or holds something else.
    """
    check_check_folder(out)  # checked again, because others may have written there meanwhile
    rows = [asdict(sample) for sample in result.ranked]
    table = io.StringIO()
    writer = csv.DictWriter(table, RANKED_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    out.mkdir(parents=True, exist_ok=True)
    lines, mode = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), _ranked_mode(result)
    write_atomic(out / RANKED_CSV, table.getvalue().encode(), mode)
    write_atomic(out / RANKED_JSONL, lines.encode(), mode)
    text = escaped_json(result.to_json(), indent=1)
    write_atomic(out / VERDICT_FILE, (text + "\n").encode())


def _ranked_mode(result: CheckResult) -> int:
    """Permissions of a ranked list: its owner's alone, if it has texts of harmful requests."""
    return 0o600 if any(sample.nearest_text is not None for sample in result.ranked) else 0o644


def write_check(result: CheckResult, folder: Path) -> None:
    """Write a result into an artifact's folder."""
    import pyarrow as pa

    columns = {name: [getattr(sample, name) for sample in result.ranked] for name in RANKED_COLUMNS}
    types = {"rank": pa.int64(), "row": pa.int64(), "distance": pa.float64(), "nearer": pa.bool_()}
    table = pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()})
    (folder / RANKED_PARQUET).touch(_ranked_mode(result))
    write_parquet(table, folder / RANKED_PARQUET, compression="zstd")
    record = {field.name: getattr(result, field.name) for field in fields(result) if field.name != "ranked"}
    record["axes"] = [asdict(axis) for axis in result.axes]
    record["rehearsal"] = None if result.rehearsal is None else asdict(result.rehearsal)
    (folder / RECORD_FILE).write_text(json.dumps(record, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def read_check(folder: Path) -> CheckResult:
    """Read the result that `write_check` wrote."""
    record: dict[str, Any] = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    table = read_parquet(folder / RANKED_PARQUET)
    columns = [table.column(name).to_pylist() for name in RANKED_COLUMNS]
    return CheckResult(
        **record
        | {
            "axes": tuple(map(_axis, record["axes"])),
            "rehearsal": None if record["rehearsal"] is None else _rehearsal(record["rehearsal"]),
            "notes": tuple(record["notes"]),
            "unreadable": tuple((place, reason) for place, reason in record["unreadable"]),
            "ranked": tuple(RankedSample(*values) for values in zip(*columns, strict=True)),
        }
    )


def _axis(record: dict[str, Any]) -> AxisCheck:
    intervals = {name: Interval(**record[name]) for name in ("auc", "expected")}
    return AxisCheck(**record | intervals | {"nearer": Rate(**record["nearer"])})


def _rehearsal(record: dict[str, Any]) -> RehearsalCheck:
    values: dict[str, Any] = {
        name: Interval(**value) if isinstance(value, dict) else value for name, value in record.items()
    }
    return RehearsalCheck(**values)
