"""What was heard in clips, written down: rows, their file, and samples with their text filled in.  Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.encoders.vectors import QUARANTINE, left_out_before, quarantine_table
from undersong.types import Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "transcripts.parquet"
COLUMNS = ("id", "text", "seconds", "model")


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


def mute(samples: Sequence[Sample]) -> list[Sample]:
    """The spoken samples without a text of their own: those to transcribe."""
    return [sample for sample in samples if sample.audio is not None and not (sample.text or "").strip()]


def with_transcripts(samples: Sequence[Sample], transcripts: Transcripts) -> tuple[Sample, ...]:
    """The samples, in order, with transcripts as the text of those that have none; a text that is there stays."""
    texts = {row.id: row.text for row in transcripts.rows}
    wanting = {sample.id for sample in mute(samples)}
    return tuple(
        replace(sample, text=texts[sample.id]) if sample.id in wanting and sample.id in texts else sample
        for sample in samples
    )


def transcripts_table(samples: Sequence[Sample], made: Transcripts) -> pa.Table:
    """One row a sample, in their order: id, text, seconds, model, and instead of these the reason why there is none."""
    import pyarrow as pa

    heard, lost = {row.id: row for row in made.rows}, {item.id: item.reason for item in made.quarantined}
    rows = [
        {name: getattr(heard[sample.id], name) for name in COLUMNS}
        if sample.id in heard
        else {"id": sample.id, "reason": lost[sample.id]}
        for sample in samples
    ]
    return pa.Table.from_pylist(rows, pa.schema([*_schema(), ("reason", pa.string())]))


def transcripts_of(table: pa.Table) -> Transcripts:
    """What `transcripts_table` holds."""
    rows, lost = list[Transcript](), list[Quarantined]()
    for row in table.to_pylist():
        reason = row.pop("reason")
        if reason is None:
            rows.append(Transcript(**row))
        else:
            lost.append(Quarantined(row["id"], reason))
    return Transcripts(tuple(rows), tuple(lost))


def write_transcripts(transcripts: Transcripts, folder: Path) -> None:
    """`transcripts.parquet` (id, text, seconds, model) and `quarantine.parquet` (id, reason)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    columns = {name: [getattr(row, name) for row in transcripts.rows] for name in COLUMNS}
    pq.write_table(pa.table(columns, schema=pa.schema(_schema())), folder / FILE)
    pq.write_table(quarantine_table(transcripts.quarantined), folder / QUARANTINE)


def read_transcripts(folder: Path) -> Transcripts:
    """What `write_transcripts` wrote.  Raises UndersongError when there is no such file or a column is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder / FILE)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise UndersongError(f"No transcripts can be read in {folder} ({error}); transcribe again.") from None
    if lacking := [name for name in COLUMNS if name not in table.column_names]:
        raise UndersongError(f"The transcripts in {folder} have no column {lacking[0]!r}; transcribe again.")
    rows = tuple(Transcript(**row) for row in table.select(list(COLUMNS)).to_pylist())
    return Transcripts(rows, tuple(left_out_before(folder)))


def _schema() -> list[tuple[str, pa.DataType]]:
    import pyarrow as pa

    return list(zip(COLUMNS, (pa.string(), pa.string(), pa.float64(), pa.string())))
