"""A screening's folder: the findings as they are kept, and as they are handed over.  Knows files; makes no number."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.pipeline.screening.asked import CHATS, FORMS
from undersong.pipeline.screening.sides import Side
from undersong.types import Quarantined, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

    from undersong.proximity import Selection

TABLES = ("proximity.parquet", "quarantine.parquet", "screening.json")
KEPT = "kept-items"  # a corpus artefact's folder, or ready embeddings
ALSO = r"(?:-\d+)?"  # of several selections those after the first have a number in their names


def _is_output(name: str) -> bool:
    """Whether a screening writes something of that name."""
    plain = re.fullmatch(rf"(selection|kept){ALSO}(.*)", name)
    return (plain[1] + plain[2] if plain else name) in (
        *TABLES,
        "selection.json",
        "kept.parquet",
        *FORMS.values(),
        "kept-audio",
    )


def _numbered(name: str, number: int) -> str:
    """The name of a file of the `number`-th selection: kept.jsonl, kept-2.jsonl, …"""
    stem, dot, rest = name.partition(".")
    return name if number == 1 else f"{stem}-{number}{dot}{rest}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a screening computes: a proximity table an axis, to all harm sets; selections; `screening.json`."""

    tables: Mapping[str, pa.Table]
    selections: Mapping[str, Selection]  # by rule, at least one
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Screened:
    """What a screening found: a proximity table an axis (by name, in order; of several harm sets, rows of each), and
    the selection on axis `by`; `also`: those of further rules."""

    tables: Mapping[str, pa.Table] = field(repr=False)  # a row a sample; a notebook shows what it is asked to
    by: str
    selection: Selection
    quarantined: tuple[Quarantined, ...]  # pool items left out of every axis
    report: Mapping[str, Any] = field(repr=False)  # `screening.json`
    also: tuple[Selection, ...] = ()

    def to_pandas(self) -> Any:
        """A pandas.DataFrame of `proximity.parquet`, and whether the sample is `kept`."""
        import pyarrow as pa

        from undersong.pipeline.frames import frame

        rows = frame(pa.concat_tables(self.tables.values()))
        return rows.assign(kept=rows["id"].isin(self.selection.ids))


def writable(out: Path) -> Path:
    """The folder to write: new, empty, or an earlier screening's and nothing else."""
    out = out.resolve()
    if out.exists():
        names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
        if not out.is_dir() or (names and not (all(map(_is_output, names)) and "selection.json" in names)):
            foreign = sorted(name for name in names if not _is_output(name))
            why = f" (it holds {foreign[0]})" if out.is_dir() and foreign else ""
            raise UndersongError(f"{out} exists and is no earlier screening{why}; name a new folder with --out.")
    return out


def write_screened(
    found: Found, more: Mapping[str, Any], pool: Side, lost: Sequence[Quarantined], folder: Path
) -> None:
    """All findings, `more` of them for the report, and the items that are kept, into an artefact's folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from undersong.corpora import write_corpus
    from undersong.encoders.vectors import quarantine_table, vectors_table
    from undersong.proximity import to_json

    pq.write_table(pa.concat_tables(found.tables.values()), folder / "proximity.parquet")
    pq.write_table(quarantine_table(tuple(lost)), folder / "quarantine.parquet")
    text = json.dumps({**found.report, **more}, ensure_ascii=False, indent=1, allow_nan=False)
    (folder / "screening.json").write_text(text + "\n", encoding="utf-8")
    for number, selection in enumerate(found.selections.values(), 1):
        (folder / _numbered("selection.json", number)).write_text(to_json(selection), encoding="utf-8")
        kept, place = set(selection.ids), folder / _numbered(KEPT, number)
        place.mkdir()
        if pool.ready is None:
            write_corpus([sample for sample in pool.samples if sample.id in kept], (), place)
            continue
        rows = [row for row, id in enumerate(pool.ready.ids) if id in kept]
        table = vectors_table([pool.ready.ids[row] for row in rows], pool.ready.vectors[rows], pool.ready.frames[rows])
        pq.write_table(table, place / "kept.parquet")


def read_screened(folder: Path) -> Screened:
    """What `write_screened` wrote."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from undersong.encoders.vectors import left_out_before
    from undersong.proximity import from_json

    report = json.loads((folder / "screening.json").read_text(encoding="utf-8"))
    selection, *also = (from_json(file.read_text(encoding="utf-8")) for file in _selections(folder))
    whole = pq.read_table(folder / "proximity.parquet")
    tables = {axis: whole.filter(pc.equal(whole.column("axis"), axis)) for axis in report["axes"]}
    return Screened(tables, selection.axis, selection, tuple(left_out_before(folder)), report, tuple(also))


def _selections(folder: Path) -> list[Path]:
    """`selection.json`, `selection-2.json` and so on."""
    found = [folder / _numbered("selection.json", number) for number in range(1, 1 + len(list(folder.iterdir())))]
    return [file for file in found if file.is_file()]


def publish(artefact: Path, out: Path, form: str) -> None:
    """The findings, and what is kept in the form asked for, into a folder beside `out`, which then takes its name."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name in TABLES:
            shutil.copyfile(artefact / name, draft / name)
        for number, file in enumerate(_selections(artefact), 1):
            shutil.copyfile(file, draft / file.name)
            _write_kept(artefact / _numbered(KEPT, number), draft, form, out, number)
        draft.chmod(0o755)
        writable(out)  # again: it took long enough for somebody to put something there
        if out.exists():
            os.rename(out, old := draft.with_name(f"{draft.name}.old"))
            os.rename(draft, out)
            shutil.rmtree(old)
        else:
            os.rename(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_kept(kept: Path, folder: Path, form: str, out: Path, number: int) -> None:
    from undersong.corpora import read_manifest, write_kept

    if (ready := kept / "kept.parquet").is_file():
        shutil.copyfile(ready, folder / _numbered(ready.name, number))
        return
    samples = read_manifest(kept).samples
    in_memory = any(isinstance(sample.audio, bytes) for sample in samples)  # which JSONL cannot hold
    file = folder / _numbered("kept.parquet" if in_memory and form == "manifest" else FORMS[form], number)
    write_kept(samples, file)
    if form in CHATS:  # trainers read whole paths, and the folder has not its name yet
        text = file.read_text(encoding="utf-8")
        here, there = (json.dumps(str(place), ensure_ascii=False)[1:-1] for place in (folder, out))
        file.write_text(text.replace(f'"{here}/', f'"{there}/'), encoding="utf-8")
