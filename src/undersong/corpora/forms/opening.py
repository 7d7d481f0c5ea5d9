"""Any corpus as a Manifest: finds the form of a file or folder by its content, and says which it took.

Knows forms and column maps; does not open audio.  A fault of the file is an error that names the line; an item that is
well-formed and no single question and answer is quarantined with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from undersong.corpora.forms.chats import FORMS, form_of
from undersong.corpora.forms.manifest import CORPUS, Manifest, gather, read_manifest
from undersong.corpora.forms.rows import FIELDS, sample_of
from undersong.corpora.forms.tables import Row, csv_rows, json_list, json_rows, parquet_rows, strict_json, text_lines
from undersong.hints import meant
from undersong.types import Quarantined, Sample, UndersongError

HUB = "hf:"
PARQUET_MAGIC = b"PAR1"
TABLES = ("jsonl", "json", "csv", "parquet")
FORMATS = ("manifest", *TABLES, *FORMS, "folder", "librispeech", "parquet-folder", "hf")


def open_manifest(
    path: str | Path,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
) -> Manifest:
    """The corpus at `path`, whatever it is written in; `Manifest.form` says what it was taken for.

    Files: JSONL, a JSON list, CSV/TSV, Parquet, and in any of them plain rows or conversations (`messages`,
    `sharegpt`, `kimi`, `alpaca`, `query`).  Folders: a corpus artefact, audio with a transcript file (`folder`),
    LibriSpeech, Parquet files as Hugging Face keeps them.  `hf:OWNER/NAME?config=…&split=…&revision=…`: a data set of
    the Hub, streamed.

    format: one of FORMATS instead of what the content says.  columns: our field -> their column (`a.b.0`, `a.*.b` lead
    into objects and lists); their other columns stay under their own names.  root: the folder no audio path may lead
    out of.  Where the first row has no id, rows without one get `FILE-NUMBER`, by their order.
    UndersongError names the file, and the line or row: unknown form, missing column, repeated id, wrong type.
    """
    if format is not None and format not in FORMATS:
        raise UndersongError(f"No format is called {format!r}; {meant(format, FORMATS)}.")
    if columns and (unknown := sorted(set(columns) - set(FIELDS))):
        raise UndersongError(f"The column map names {unknown[0]!r}, no field; {meant(unknown[0], FIELDS)}.")
    if str(path).startswith(HUB) or format == "hf":
        from undersong.corpora.forms.hub import open_hub

        return open_hub(str(path), columns)
    found = format or form_of_path(Path(path))
    if found == "manifest":
        if columns:
            raise UndersongError(f"{path} is a corpus artefact, whose columns have their names; leave the map out.")
        return read_manifest(path, root)
    rows, form, start = _rows(Path(path), found, columns or {})
    return manifest_of(rows, form, start, Path(path).stem, columns, root, Path(path))


def form_of_path(path: Path) -> str:
    """What a file or folder is, by what is in it.  UndersongError where it is nothing known."""
    from undersong.corpora.forms.folder import folder_form

    if path.is_dir():
        return "manifest" if (path / CORPUS).is_file() else folder_form(path)
    if not path.is_file():  # a pipe or device would be waited for
        raise UndersongError(f"There is no manifest {path}; check the path.")
    with path.open("rb") as file:
        if file.read(4) == PARQUET_MAGIC:
            return "parquet"
    first = next((line.strip() for line in text_lines(path) if line.strip()), "")
    if first.startswith("{") and (path.suffix.lower() == ".jsonl" or _is_json(first)):
        # An object in one line may be a whole file: with a list in it and nothing after it, it is.
        return "json" if _is_json(first) and _is_wrapped(path) else "jsonl"
    if first.startswith(("{", "[")):
        return "json"
    if not first:
        raise UndersongError(f"Manifest {path} holds no items; add some, one a line.")
    return "csv"


def manifest_of(
    rows: Iterable[Row],
    form: str,
    start: Path,
    stem: str,
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    named: Path | None = None,
) -> Manifest:
    """Rows (with their places) as a Manifest; for a form of conversations each is turned into plain fields first.

    `start`: where relative audio paths start; `stem`: what the ids of rows without one begin with; `named`: what an
    error calls the whole by.
    """
    columns, failed, seen = dict(columns or {}), list[Quarantined](), set[str]()
    where = start / stem if named is None else named

    def samples() -> Iterator[tuple[str, Sample]]:
        numbered: bool | None = None
        for number, (place, row) in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise UndersongError(f"{place} is not an object with named fields; write one JSON object a line.")
            name = f"{stem}-{number:06d}"
            if form in FORMS:
                try:
                    row = FORMS[form](row)
                except ValueError as error:
                    failed.append(Quarantined(str(row.get("id") or name), str(error)))
                    continue
            row = _renamed(row, columns, seen)
            if form in ("csv", "folder"):
                row = _typed(row, place)
            if numbered is None:  # all or none: where the first row has an id, a later one without is a fault
                numbered = row.get("id") is None and "id" not in columns
            if numbered and row.get("id") is None:  # a row that has one, among those without, keeps it
                row["id"] = name
            yield place, sample_of(row, start, place)

    kept = gather(samples(), root)
    if not kept and not failed:
        raise UndersongError(f"{where} holds no items; add some, one a line.")
    if kept and (missing := sorted(set(columns) - seen)):
        theirs = columns[missing[0]]
        there = sorted({name.removeprefix("source_") for sample in kept for name, _ in sample.labels})
        raise UndersongError(f"No item of {where} has a column {theirs!r}; {meant(theirs, there)}.")
    return Manifest(kept, tuple(failed), start, form)


def _rows(path: Path, found: str, columns: Mapping[str, str]) -> tuple[Iterator[Row], str, Path]:
    """(rows, form, folder relative audio starts at)."""
    from undersong.corpora.forms import folder

    if found == "folder":
        return folder.transcribed(path), found, Path.cwd() / path
    if found == "librispeech":
        return folder.librispeech(path), found, Path.cwd() / path
    start = Path.cwd() / (path if path.is_dir() else path.parent)
    table = found if found in TABLES else "parquet-folder" if path.is_dir() else form_of_path(path)
    rows = _table(path, table)
    if (first := next(rows, None)) is None:
        return iter(()), found, start
    form = found if found in FORMS else form_of(first[1], columns) or table
    return chain([first], rows), form, start


def _table(path: Path, kind: str) -> Iterator[Row]:
    if kind == "parquet-folder":
        from undersong.corpora.forms.folder import parquet_files

        return chain.from_iterable(parquet_rows(file) for file in parquet_files(path))
    readers: dict[str, Callable[[Path], Iterator[Row]]]
    readers = {"jsonl": json_rows, "json": json_list, "csv": csv_rows, "parquet": parquet_rows}
    return readers[kind](path)


def _typed(row: dict[str, Any], place: str) -> dict[str, Any]:
    """A row of a CSV, where all is text: seconds as the number, answers as the JSON list they are written as."""
    out = dict(row)
    try:
        if isinstance(out.get("seconds"), str):
            out["seconds"] = float(out["seconds"])
        if isinstance(out.get("answers"), str):
            out["answers"] = strict_json(out["answers"])
    except ValueError as error:
        raise UndersongError(f"{place}: {error}; write seconds as a number and answers as a JSON list.") from error
    return out


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str], seen: set[str]) -> dict[str, Any]:
    """The row under our names.  A column of ours that a mapped one takes the place of stays as `source_NAME`."""
    out = dict(row)
    for ours in columns:
        if ours in out and columns[ours] != ours:
            out[f"source_{ours}"] = out.pop(ours)
    for ours, theirs in columns.items():
        value, whole = _reached(row, theirs)
        if value is None:
            continue
        seen.add(ours)
        out[ours] = value
        if whole and theirs != ours:  # the same column may serve two fields; what was an own name is put away above
            out.pop(theirs if theirs not in columns else f"source_{theirs}", None)
    return out


def _reached(row: Mapping[str, Any], theirs: str) -> tuple[Any, bool]:
    """(the value under a name or a dotted path, whether it is the whole column)."""
    if theirs in row:
        return row[theirs], True
    return _inside(row, theirs.split(".")), False


def _inside(value: Any, steps: list[str]) -> Any:
    """What a path leads to: names in objects, numbers in lists, `*` for all of a list; None where it leads nowhere."""
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(value, Mapping) and step in value:
        return _inside(value[step], rest)
    if isinstance(value, list) and step == "*":
        return [found for item in value if (found := _inside(item, rest)) is not None]
    if isinstance(value, list) and step.isdigit() and int(step) < len(value):
        return _inside(value[int(step)], rest)
    return None


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
    if not isinstance(row, dict) or form_of(row) or not row.keys().isdisjoint(("id", "audio", "text")):
        return False
    lists = [value for value in row.values() if isinstance(value, list) and value]
    return len(lists) == 1 and all(isinstance(item, dict) for item in lists[0])
