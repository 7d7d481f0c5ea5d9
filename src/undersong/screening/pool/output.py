"""Output of a screening: the findings as a store artifact, and the output folder."""

from __future__ import annotations

import csv
import json
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.escaping import escaped_json
from undersong.screening.pool.inputs import CorpusInput
from undersong.screening.pool.options import CHAT_FORMATS, OUTPUT_FORMATS
from undersong.store.atomic import atomic_replacement
from undersong.store.parquet import parquet_writer, read_parquet, write_parquet
from undersong.types import Embeddings, Quarantined, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

    from undersong.proximity.selection import Selection


SCREENING_REPORT, RANKED = "screening.json", "ranked.csv"
TABLE_FILES = ("proximity.parquet", "quarantine.parquet", SCREENING_REPORT, RANKED)
KEPT_ITEMS = "kept-items"  # folder of a corpus artifact, or of precomputed embeddings
NUMBER_SUFFIX_PATTERN = r"(?:-\d+)?"  # selections after the first have a number in their file names


def _is_output(name: str) -> bool:
    """True if a screening writes a file of this name."""
    match = re.fullmatch(rf"(selection|kept){NUMBER_SUFFIX_PATTERN}(.*)", name)
    return (match[1] + match[2] if match else name) in (
        *TABLE_FILES,
        "selection.json",
        "kept.parquet",
        *OUTPUT_FORMATS.values(),
        "kept-audio",
    )


def _numbered_name(name: str, number: int) -> str:
    """File name of the `number`-th selection: kept.jsonl, kept-2.jsonl, …"""
    stem, dot, rest = name.partition(".")
    return name if number == 1 else f"{stem}-{number}{dot}{rest}"


@dataclass(frozen=True, slots=True)
class ScreeningFindings:
    """Findings of a screening: a proximity table per axis, to all harm sets; selections; `screening.json`; and the
    texts of the harm set that is selected by, by id.
    """

    tables: Mapping[str, pa.Table]
    selections: Mapping[str, Selection]  # by rule; none if nothing is to be kept
    report: Mapping[str, Any]
    harm_texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ScreeningResult:
    """Result of a screening.

    `tables` has a proximity table per axis, in order, with rows for each harm set. `selection` is on `select_axis`, and
    None without a rule; `extra_selections` are those of further rules.
    """

    tables: Mapping[str, pa.Table] = field(repr=False)  # not in the repr, because tables are large
    select_axis: str
    selection: Selection | None
    quarantined: tuple[Quarantined, ...]  # pool items left out of every axis
    report: Mapping[str, Any] = field(repr=False)  # `screening.json`
    extra_selections: tuple[Selection, ...] = ()
    written_views: tuple[str, ...] = ()  # a sentence about the page and the explorer's table, each if it was written

    def to_pandas(self) -> Any:
        """Data frame of `proximity.parquet`, with a column `kept` if there is a selection."""
        import pyarrow as pa

        rows = to_data_frame(pa.concat_tables(self.tables.values()))
        return rows if self.selection is None else rows.assign(kept=rows["id"].isin(self.selection.ids))


def writable_screening_folder(out: Path) -> Path:
    """Check that a folder can be written: it is new, empty, or holds only an earlier screening.

    Raises:
        UndersongError: The folder holds something else.
    """
    out = out.resolve()
    if out.exists():
        names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
        if not out.is_dir() or (names and not (all(map(_is_output, names)) and SCREENING_REPORT in names)):
            foreign = sorted(name for name in names if not _is_output(name))
            detail = f" (it holds {foreign[0]})" if out.is_dir() and foreign else ""
            raise UndersongError(f"{out} exists and is not a screening{detail}; name a new folder with --out.")
    return out


def write_screening(
    findings: ScreeningFindings,
    extra_findings: Mapping[str, Any],
    pool: CorpusInput,
    quarantined: Sequence[Quarantined],
    folder: Path,
) -> None:
    """Write all findings and the kept items into an artifact's folder.

    Args:
        findings: The findings.
        extra_findings: Further entries of the report.
        pool: The pool.
        quarantined: Pool items left out on every axis.
        folder: The artifact's folder.
    """
    import pyarrow as pa

    from undersong.corpora.manifest import write_corpus
    from undersong.encoders.embeddings import quarantine_table
    from undersong.proximity.selection import selection_to_json

    write_parquet(pa.concat_tables(findings.tables.values()), folder / "proximity.parquet")
    write_parquet(quarantine_table(tuple(quarantined)), folder / "quarantine.parquet")
    text = escaped_json({**findings.report, **extra_findings}, indent=1)
    for name in (SCREENING_REPORT, RANKED):  # both have texts of harmful items
        (folder / name).touch(0o600 if findings.harm_texts else 0o644)
    (folder / SCREENING_REPORT).write_text(text + "\n", encoding="utf-8")
    _write_ranked(findings, pool, folder / RANKED)
    for number, selection in enumerate(findings.selections.values(), 1):
        (folder / _numbered_name("selection.json", number)).write_text(selection_to_json(selection), encoding="utf-8")
        kept_ids, kept_folder = set(selection.ids), folder / _numbered_name(KEPT_ITEMS, number)
        kept_folder.mkdir()
        if pool.precomputed is None:
            write_corpus([sample for sample in pool.samples if sample.id in kept_ids], (), kept_folder)
            continue
        rows = [row for row, id in enumerate(pool.precomputed.ids) if id in kept_ids]
        _write_kept_embeddings(pool.precomputed, rows, kept_folder / "kept.parquet")


def _write_ranked(findings: ScreeningFindings, pool: CorpusInput, file: Path) -> None:
    """All items by their rank on the axis that is selected by: distance, text, and the nearest harmful item."""
    from undersong.proximity.table import filter_harm_set, ranking_scores

    selected_by = findings.report["selected_by"]
    table = filter_harm_set(findings.tables[selected_by["axis"]], selected_by["harm_set"])
    columns = [table.column(name).to_pylist() for name in ("rank", "id")]
    nearest_ids, texts = table.column("nearest_id").to_pylist(), pool.texts
    rows = sorted(zip(*columns, ranking_scores(table).tolist(), nearest_ids, strict=True))
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(("rank", "id", "distance", "text", "nearest_id", "nearest_text"))
        for rank, item_id, distance, nearest_id in rows:
            nearest_text = None if nearest_id is None else findings.harm_texts.get(nearest_id)
            writer.writerow((rank, item_id, f"{distance:.6g}", texts.get(item_id), nearest_id, nearest_text))


def _write_kept_embeddings(pool: Embeddings, rows: Sequence[int], file: Path) -> None:
    """A block at a time: what is kept of a pool that is mapped from disk may itself be larger than memory."""
    from undersong.encoders.embeddings import ROWS_PER_FILE, embeddings_table

    def table(block: Sequence[int]) -> pa.Table:
        return embeddings_table([pool.ids[row] for row in block], pool.vectors[block], pool.frames[block])

    first = table(rows[:ROWS_PER_FILE])
    with parquet_writer(file, first.schema) as writer:
        writer.write_table(first)
        for start in range(ROWS_PER_FILE, len(rows), ROWS_PER_FILE):
            writer.write_table(table(rows[start : start + ROWS_PER_FILE]))


def read_screening(folder: Path) -> ScreeningResult:
    """Read a folder that `write_screening` wrote."""
    import pyarrow.compute as pc

    from undersong.encoders.embeddings import read_quarantine
    from undersong.proximity.selection import selection_from_json

    report = json.loads((folder / SCREENING_REPORT).read_text(encoding="utf-8"))
    selections = [selection_from_json(file.read_text(encoding="utf-8")) for file in _selection_files(folder)]
    all_axes_table = read_parquet(folder / "proximity.parquet")
    tables = {axis: all_axes_table.filter(pc.equal(all_axes_table.column("axis"), axis)) for axis in report["axes"]}
    first = selections[0] if selections else None
    quarantined = tuple(read_quarantine(folder))
    return ScreeningResult(tables, report["selected_by"]["axis"], first, quarantined, report, tuple(selections[1:]))


def _selection_files(folder: Path) -> list[Path]:
    """Files `selection.json`, `selection-2.json` and so on."""
    candidates = [
        folder / _numbered_name("selection.json", number) for number in range(1, 1 + len(list(folder.iterdir())))
    ]
    return [file for file in candidates if file.is_file()]


def publish_screening(artifact_folder: Path, out: Path, output_format: str) -> None:
    """Write the findings and the kept items to a temporary folder, which then replaces `out`.

    Args:
        artifact_folder: Folder of the screening artifact.
        out: The output folder.
        output_format: Format of the kept items.
    """
    with atomic_replacement(out) as draft:
        draft.mkdir()
        for name in TABLE_FILES:
            (draft / name).touch(stat.S_IMODE((artifact_folder / name).stat().st_mode))  # from its first byte on
            shutil.copyfile(artifact_folder / name, draft / name)
        for number, file in enumerate(_selection_files(artifact_folder), 1):
            shutil.copyfile(file, draft / file.name)
            _write_kept(artifact_folder / _numbered_name(KEPT_ITEMS, number), draft, output_format, out, number)
        writable_screening_folder(out)  # checked again, because others may have written there meanwhile


def _write_kept(kept_folder: Path, folder: Path, output_format: str, out: Path, number: int) -> None:
    from undersong.corpora.export import write_samples
    from undersong.corpora.manifest import read_manifest

    if (precomputed_file := kept_folder / "kept.parquet").is_file():
        shutil.copyfile(precomputed_file, folder / _numbered_name(precomputed_file.name, number))
        return
    samples = read_manifest(kept_folder).samples
    in_memory = any(isinstance(sample.audio, bytes) for sample in samples)  # JSONL cannot hold bytes
    file = folder / _numbered_name(
        "kept.parquet" if in_memory and output_format == "manifest" else OUTPUT_FORMATS[output_format], number
    )
    write_samples(samples, file)
    if output_format in CHAT_FORMATS:  # trainers need absolute paths, and the folder is not renamed yet
        text = file.read_text(encoding="utf-8")
        draft_text, final_text = (json.dumps(str(path), ensure_ascii=False)[1:-1] for path in (folder, out))
        file.write_text(text.replace(f'"{draft_text}/', f'"{final_text}/'), encoding="utf-8")


def import_pandas() -> Any:
    """Import pandas.

    Raises:
        UndersongError: It is not installed.
    """
    try:
        import pandas as pandas_module
    except ImportError:
        raise UndersongError("A data frame needs pandas, which is not installed; pip install pandas.") from None
    return pandas_module


def to_data_frame(table: pa.Table) -> Any:
    """Table as a pandas data frame."""
    import_pandas()  # pyarrow would raise another error
    return table.to_pandas()
