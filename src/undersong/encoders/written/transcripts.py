"""What was heard in clips, written down: rows, their file, and samples with their text filled in.  Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.encoders.embeddings import QUARANTINE_FILE, quarantine_table, read_quarantine
from undersong.types import Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

TRANSCRIPTS_FILE = "transcripts.parquet"
TRANSCRIPT_COLUMNS = ("id", "text", "seconds", "model")


@dataclass(frozen=True, slots=True)
class Transcript:
    """One clip of `seconds` as `model` understood it."""

    id: str
    text: str
    seconds: float
    model: str


@dataclass(frozen=True, slots=True)
class Transcripts:
    """In the samples' order; what could not be transcribed is quarantined."""

    rows: tuple[Transcript, ...]
    quarantined: tuple[Quarantined, ...] = ()


def samples_without_text(samples: Sequence[Sample]) -> list[Sample]:
    """The spoken samples without a text of their own: those to transcribe."""
    return [sample for sample in samples if sample.audio is not None and not (sample.text or "").strip()]


def with_transcripts(samples: Sequence[Sample], transcripts: Transcripts) -> tuple[Sample, ...]:
    """The samples, in order, with transcripts as the text of those that have none; a text that is there stays."""
    texts = {row.id: row.text for row in transcripts.rows}
    missing_ids = {sample.id for sample in samples_without_text(samples)}
    return tuple(
        replace(sample, text=texts[sample.id]) if sample.id in missing_ids and sample.id in texts else sample
        for sample in samples
    )


def transcripts_table(samples: Sequence[Sample], transcripts: Transcripts) -> pa.Table:
    """One row a sample, in their order: id, text, seconds, model, and instead of these the reason why there is none."""
    import pyarrow as pa

    transcribed, reasons = (
        {row.id: row for row in transcripts.rows},
        {item.id: item.reason for item in transcripts.quarantined},
    )
    rows = [
        {name: getattr(transcribed[sample.id], name) for name in TRANSCRIPT_COLUMNS}
        if sample.id in transcribed
        else {"id": sample.id, "reason": reasons[sample.id]}
        for sample in samples
    ]
    return pa.Table.from_pylist(rows, pa.schema([*_schema(), ("reason", pa.string())]))


def transcripts_from_table(table: pa.Table) -> Transcripts:
    """What `transcripts_table` holds."""
    rows, quarantined = list[Transcript](), list[Quarantined]()
    for row in table.to_pylist():
        reason = row.pop("reason")
        if reason is None:
            rows.append(Transcript(**row))
        else:
            quarantined.append(Quarantined(row["id"], reason))
    return Transcripts(tuple(rows), tuple(quarantined))


def write_transcripts(transcripts: Transcripts, folder: Path) -> None:
    """`transcripts.parquet` (id, text, seconds, model) and `quarantine.parquet` (id, reason)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    columns = {name: [getattr(row, name) for row in transcripts.rows] for name in TRANSCRIPT_COLUMNS}
    pq.write_table(pa.table(columns, schema=pa.schema(_schema())), folder / TRANSCRIPTS_FILE)
    pq.write_table(quarantine_table(transcripts.quarantined), folder / QUARANTINE_FILE)


def read_transcripts(folder: Path) -> Transcripts:
    """What `write_transcripts` wrote.  Raises UndersongError when there is no such file or a column is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder / TRANSCRIPTS_FILE)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise UndersongError(f"No transcripts can be read in {folder} ({error}); transcribe again.") from None
    if missing := [name for name in TRANSCRIPT_COLUMNS if name not in table.column_names]:
        raise UndersongError(f"The transcripts in {folder} have no column {missing[0]!r}; transcribe again.")
    rows = tuple(Transcript(**row) for row in table.select(list(TRANSCRIPT_COLUMNS)).to_pylist())
    return Transcripts(rows, tuple(read_quarantine(folder)))


def _schema() -> list[tuple[str, pa.DataType]]:
    import pyarrow as pa

    return list(zip(TRANSCRIPT_COLUMNS, (pa.string(), pa.string(), pa.float64(), pa.string())))
