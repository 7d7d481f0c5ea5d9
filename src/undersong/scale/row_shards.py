"""Resumable shards of a per-item pass with small results (audio metadata, transcripts), one Parquet file each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.scale.embedding_job import parse_shard
from undersong.store import atomic_replacement
from undersong.types import Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

RowFunction = Callable[[Sequence[Sample]], "pa.Table"]  # items -> one row each, in order
# Yields the number of each shard when it is complete.
ShardScheduler = Callable[[Callable[[], RowFunction], "RowShards", Sequence[int]], Iterator[int]]


@dataclass(frozen=True, slots=True)
class RowShards:
    """`samples` in shards of `rows` in `folder`, whose name depends on everything that the rows depend on."""

    folder: Path
    samples: Sequence[Sample]
    rows: int

    @property
    def shard_count(self) -> int:
        """Number of shards; the last may be smaller."""
        return -(-len(self.samples) // self.rows)

    def shard_file(self, number: int) -> Path:
        """File with a shard's rows; it exists once it is complete."""
        return self.folder / f"rows-{self.rows}-{number:05d}.parquet"  # another shard size is other files

    def shard_samples(self, number: int) -> Sequence[Sample]:
        """Items of a shard."""
        return self.samples[number * self.rows : (number + 1) * self.rows]

    def missing_shards(self) -> list[int]:
        """Numbers of the missing shards, in order."""
        return [number for number in range(self.shard_count) if not self.shard_file(number).is_file()]

    def table(self) -> pa.Table:
        """All rows, in the items' order. Raises UndersongError for a damaged shard, which is removed and made again."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = []
        for number in range(self.shard_count):
            try:
                tables.append(pq.read_table(self.shard_file(number)))
            except (OSError, pa.ArrowException) as error:
                self.shard_file(number).unlink(missing_ok=True)
                raise UndersongError(
                    f"{self.shard_file(number)} cannot be read ({error}); run again to make it again."
                ) from error
        return pa.concat_tables(tables)


def write_rows(file: Path, samples: Sequence[Sample], row_function: RowFunction) -> None:
    """Compute and write the rows of a shard, safe from kills."""
    import pyarrow.parquet as pq

    table = row_function(samples)
    if table.num_rows != len(samples):
        raise UndersongError(
            f"{table.num_rows} rows were made for the {len(samples)} items of {file.name}; give one row per item."
        )
    with atomic_replacement(file) as temporary:
        pq.write_table(table, temporary)


def fill_row_shards(
    row_shards: RowShards,
    make: Callable[[], RowFunction],
    *,
    shard: str | None = None,
    scheduler: ShardScheduler | None = None,
    progress: ProgressCallback | None = None,
) -> int:
    """Compute the missing shards; return their number.

    Shards that another job finishes in the meantime stay as they are.

    Args:
        row_shards: The shards.
        make: Loads what the pass needs; not called if nothing is missing.
        shard: `"i/n"`: only this job's part of the shards.
        scheduler: Computes the shards, if not this process.
        progress: Progress callback.
    """
    is_assigned = parse_shard(shard)
    numbers = [number for number in row_shards.missing_shards() if is_assigned(number)]
    if shard is None:
        numbers.reverse()  # other jobs that still run start at the front
    progress_meter, finished_items = (
        start_progress(sum(len(row_shards.shard_samples(number)) for number in numbers), progress),
        0,
    )
    for number in (scheduler or _run_locally)(make, row_shards, numbers) if numbers else ():
        finished_items += len(row_shards.shard_samples(number))
        progress_meter.update(finished_items)
    return len(numbers)


def _run_locally(make: Callable[[], RowFunction], row_shards: RowShards, numbers: Sequence[int]) -> Iterator[int]:
    """Compute shards one after another, except for those that another job finishes in the meantime."""
    row_function: RowFunction | None = None
    for number in numbers:
        if not row_shards.shard_file(number).is_file():
            row_function = row_function or make()
            write_rows(row_shards.shard_file(number), row_shards.shard_samples(number), row_function)
        yield number
