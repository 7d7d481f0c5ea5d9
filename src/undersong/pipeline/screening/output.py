"""Output of a screening: the findings as a store artifact, and the output folder."""

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

from undersong.pipeline.screening.inputs import CorpusInput
from undersong.pipeline.screening.options import CHAT_FORMATS, OUTPUT_FORMATS
from undersong.types import Embeddings, Quarantined, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

    from undersong.proximity import Selection


TABLE_FILES = ("proximity.parquet", "quarantine.parquet", "screening.json")
KEPT_ITEMS = "kept-items"  # a corpus artifact's folder, or ready embeddings
NUMBER_SUFFIX_PATTERN = r"(?:-\d+)?"  # of several selections those after the first have a number in their names


def _is_output(name: str) -> bool:
    """Whether a screening writes something of that name."""
    match = re.fullmatch(rf"(selection|kept){NUMBER_SUFFIX_PATTERN}(.*)", name)
    return (match[1] + match[2] if match else name) in (
        *TABLE_FILES,
        "selection.json",
        "kept.parquet",
        *OUTPUT_FORMATS.values(),
        "kept-audio",
    )


def _numbered_name(name: str, number: int) -> str:
    """The name of a file of the `number`-th selection: kept.jsonl, kept-2.jsonl, …"""
    stem, dot, rest = name.partition(".")
    return name if number == 1 else f"{stem}-{number}{dot}{rest}"


@dataclass(frozen=True, slots=True)
class ScreeningFindings:
    """What a screening computes: a proximity table an axis, to all harm sets; selections; `screening.json`."""

    tables: Mapping[str, pa.Table]
    selections: Mapping[str, Selection]  # by rule, at least one
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ScreeningResult:
    """What a screening found: a proximity table an axis (by name, in order; of several harm sets, rows of each), and
    the selection on axis `by`; `also`: those of further rules."""

    tables: Mapping[str, pa.Table] = field(repr=False)  # a row a sample; a notebook shows what it is asked to
    select_axis: str
    selection: Selection
    quarantined: tuple[Quarantined, ...]  # pool items left out of every axis
    report: Mapping[str, Any] = field(repr=False)  # `screening.json`
    extra_selections: tuple[Selection, ...] = ()

    def to_pandas(self) -> Any:
        """A pandas.DataFrame of `proximity.parquet`, and whether the sample is `kept`."""
        import pyarrow as pa

        rows = to_data_frame(pa.concat_tables(self.tables.values()))
        return rows.assign(kept=rows["id"].isin(self.selection.ids))


def writable_screening_folder(out: Path) -> Path:
    """The folder to write: new, empty, or an earlier screening's and nothing else."""
    out = out.resolve()
    if out.exists():
        names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
        if not out.is_dir() or (names and not (all(map(_is_output, names)) and "selection.json" in names)):
            foreign = sorted(name for name in names if not _is_output(name))
            detail = f" (it holds {foreign[0]})" if out.is_dir() and foreign else ""
            raise UndersongError(f"{out} exists and is no earlier screening{detail}; name a new folder with --out.")
    return out


def write_screening(
    findings: ScreeningFindings,
    extra_findings: Mapping[str, Any],
    pool: CorpusInput,
    quarantined: Sequence[Quarantined],
    folder: Path,
) -> None:
    """All findings, `more` of them for the report, and the items that are kept, into an artifact's folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from undersong.corpora import write_corpus
    from undersong.encoders.embeddings import quarantine_table
    from undersong.proximity import selection_to_json

    pq.write_table(pa.concat_tables(findings.tables.values()), folder / "proximity.parquet")
    pq.write_table(quarantine_table(tuple(quarantined)), folder / "quarantine.parquet")
    text = json.dumps({**findings.report, **extra_findings}, ensure_ascii=False, indent=1, allow_nan=False)
    (folder / "screening.json").write_text(text + "\n", encoding="utf-8")
    for number, selection in enumerate(findings.selections.values(), 1):
        (folder / _numbered_name("selection.json", number)).write_text(selection_to_json(selection), encoding="utf-8")
        kept_ids, kept_folder = set(selection.ids), folder / _numbered_name(KEPT_ITEMS, number)
        kept_folder.mkdir()
        if pool.precomputed is None:
            write_corpus([sample for sample in pool.samples if sample.id in kept_ids], (), kept_folder)
            continue
        rows = [row for row, id in enumerate(pool.precomputed.ids) if id in kept_ids]
        _write_kept_embeddings(pool.precomputed, rows, kept_folder / "kept.parquet")


def _write_kept_embeddings(pool: Embeddings, rows: Sequence[int], file: Path) -> None:
    """A block at a time: what is kept of a pool that is mapped from disk may itself be larger than memory."""
    import pyarrow.parquet as pq

    from undersong.encoders.embeddings import ROWS_PER_FILE, embeddings_table

    def table(block: Sequence[int]) -> pa.Table:
        return embeddings_table([pool.ids[row] for row in block], pool.vectors[block], pool.frames[block])

    first = table(rows[:ROWS_PER_FILE])
    with pq.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for start in range(ROWS_PER_FILE, len(rows), ROWS_PER_FILE):
            writer.write_table(table(rows[start : start + ROWS_PER_FILE]))


def read_screening(folder: Path) -> ScreeningResult:
    """What `write_screened` wrote."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from undersong.encoders.embeddings import read_quarantine
    from undersong.proximity import selection_from_json

    report = json.loads((folder / "screening.json").read_text(encoding="utf-8"))
    selection, *extra_selections = (
        selection_from_json(file.read_text(encoding="utf-8")) for file in _selection_files(folder)
    )
    all_axes_table = pq.read_table(folder / "proximity.parquet")
    tables = {axis: all_axes_table.filter(pc.equal(all_axes_table.column("axis"), axis)) for axis in report["axes"]}
    return ScreeningResult(
        tables, selection.axis, selection, tuple(read_quarantine(folder)), report, tuple(extra_selections)
    )


def _selection_files(folder: Path) -> list[Path]:
    """`selection.json`, `selection-2.json` and so on."""
    candidates = [
        folder / _numbered_name("selection.json", number) for number in range(1, 1 + len(list(folder.iterdir())))
    ]
    return [file for file in candidates if file.is_file()]


def publish_screening(artifact_folder: Path, out: Path, output_format: str) -> None:
    """The findings, and what is kept in the form asked for, into a folder beside `out`, which then takes its name."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name in TABLE_FILES:
            shutil.copyfile(artifact_folder / name, draft / name)
        for number, file in enumerate(_selection_files(artifact_folder), 1):
            shutil.copyfile(file, draft / file.name)
            _write_kept(artifact_folder / _numbered_name(KEPT_ITEMS, number), draft, output_format, out, number)
        draft.chmod(0o755)
        writable_screening_folder(out)  # again: it took long enough for somebody to put something there
        if out.exists():
            os.rename(out, old := draft.with_name(f"{draft.name}.old"))
            os.rename(draft, out)
            shutil.rmtree(old)
        else:
            os.rename(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_kept(kept_folder: Path, folder: Path, output_format: str, out: Path, number: int) -> None:
    from undersong.corpora import read_manifest, write_samples

    if (precomputed_file := kept_folder / "kept.parquet").is_file():
        shutil.copyfile(precomputed_file, folder / _numbered_name(precomputed_file.name, number))
        return
    samples = read_manifest(kept_folder).samples
    in_memory = any(isinstance(sample.audio, bytes) for sample in samples)  # which JSONL cannot hold
    file = folder / _numbered_name(
        "kept.parquet" if in_memory and output_format == "manifest" else OUTPUT_FORMATS[output_format], number
    )
    write_samples(samples, file)
    if output_format in CHAT_FORMATS:  # trainers read whole paths, and the folder has not its name yet
        text = file.read_text(encoding="utf-8")
        draft_text, final_text = (json.dumps(str(path), ensure_ascii=False)[1:-1] for path in (folder, out))
        file.write_text(text.replace(f'"{draft_text}/', f'"{final_text}/'), encoding="utf-8")


def import_pandas() -> Any:
    """The library, or a sentence that it is not there."""
    try:
        import pandas as pandas_module
    except ImportError:
        raise UndersongError("A data frame needs pandas, which is not installed; pip install pandas.") from None
    return pandas_module


def to_data_frame(table: pa.Table) -> Any:
    """A table as a pandas.DataFrame."""
    import_pandas()  # pyarrow's own error is of another kind
    return table.to_pandas()
