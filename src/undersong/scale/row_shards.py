"""Resumable shards of a pass over samples (decode metadata, transcripts, vectors): one row per item, one file per
shard.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.store.atomic import write_atomic
from undersong.store.parquet import read_parquet, write_parquet
from undersong.types import Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

RowFunction = Callable[[Sequence[Sample]], "pa.Table"]  # items -> one row each, in order
# Yields the number of each shard when it is complete.
ShardScheduler = Callable[[Callable[[], RowFunction], "RowShards", Sequence[int]], Iterator[int]]


@dataclass(frozen=True, slots=True)
class RowShards:
    """Shards of `rows` samples each, in `folder`, whose name depends on everything that the rows depend on.

    A shard is written under another name and then renamed, so an existing file is complete. Its name holds the hash of
    its bytes, so damage is found when it is read.
    """

    folder: Path
    samples: Sequence[Sample]
    rows: int

    @property
    def shard_count(self) -> int:
        """Number of shards; the last may be smaller."""
        return -(-len(self.samples) // self.rows)

    def shard_file(self, number: int) -> Path | None:
        """Return the file of a shard, or None if it does not exist."""
        return next(iter(sorted(self.folder.glob(f"{self._stem(number)}.*.parquet"))), None)

    def shard_samples(self, number: int) -> Sequence[Sample]:
        """Items of a shard."""
        return self.samples[number * self.rows : (number + 1) * self.rows]

    def missing_shards(self) -> list[int]:
        """Numbers of the shards that are not there, in order."""
        stems = {path.name.partition(".")[0] for path in self.folder.glob(f"rows-{self.rows}-*.parquet")}
        return [number for number in range(self.shard_count) if self._stem(number) not in stems]

    def write_shard(self, number: int, samples: Sequence[Sample], row_function: RowFunction) -> None:
        """Compute the rows of a shard's `samples` and write them to a file, completely or not at all."""
        import pyarrow as pa

        table = row_function(samples)
        if table.num_rows != len(samples):
            raise UndersongError(
                f"{table.num_rows} rows were made of the {len(samples)} items of shard {number} in {self.folder}; "
                "every item must have one."
            )
        buffer = pa.BufferOutputStream()
        write_parquet(table, buffer)
        data = buffer.getvalue().to_pybytes()
        write_atomic(self.folder / f"{self._stem(number)}.{_short_hash(data)}.parquet", data)

    def tables(self) -> Iterator[pa.Table]:
        """The rows of one shard after another, in the items' order.

        Raises:
            UndersongError: A shard is missing, or damaged; a damaged one is removed, and the next run makes it anew.
        """
        import pyarrow as pa

        for number in range(self.shard_count):
            if (file := self.shard_file(number)) is None:
                raise UndersongError(f"Shard {number} is missing in {self.folder}; run again, which makes it.")
            data = file.read_bytes()
            if file.name.split(".")[1] != _short_hash(data):
                file.unlink(missing_ok=True)
                raise UndersongError(f"{file} is not what was written; run again, which makes it anew.")
            yield read_parquet(pa.BufferReader(data))

    def table(self) -> pa.Table:
        """All rows, in the items' order; raises as `tables` does."""
        import pyarrow as pa

        return pa.concat_tables(self.tables())

    def _stem(self, number: int) -> str:
        return f"rows-{self.rows}-{number:05d}"  # another shard size is other files


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def parse_shard(shard: str | None) -> Callable[[int], bool]:
    """Parse `"i/n"` to a function that tells whether a shard number belongs to that job; None means all shards.

    Raises UndersongError for anything else.
    """
    if shard is None:
        return lambda _number: True
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)
    i, n = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= i <= n:
        raise UndersongError(
            f"Shard {shard!r} is no i/n with i from 1 to n; write 1/{n or 8} for the first of {n or 8}."
        )
    # Every n-th and not a stretch: corpora are often sorted by length, and the jobs are to end together.
    return lambda number: number % n == i - 1


def fill_row_shards(
    row_shards: RowShards,
    make: Callable[[], RowFunction],
    *,
    shard: str | None = None,
    scheduler: ShardScheduler | None = None,
    progress: ProgressCallback | None = None,
) -> int:
    """Make the missing shards.

    Args:
        row_shards: The shards; those that another job makes in the meantime are left as they are.
        make: Loads what the pass needs; not called if no shard is missing.
        shard: One job's part of the shards, `"i/n"`; None: all of them.
        scheduler: Computes the shards elsewhere (`ray_scheduler`); None: in this process.
        progress: Called with the number of finished items.

    Returns:
        Number of shards that were missing.
    """
    is_assigned = parse_shard(shard)
    numbers = [number for number in row_shards.missing_shards() if is_assigned(number)]
    if shard is None:
        numbers.reverse()  # jobs that still work come from the front
    item_count, finished_items = sum(len(row_shards.shard_samples(number)) for number in numbers), 0
    progress_meter = start_progress(item_count, progress)
    for number in (scheduler or _run_locally)(make, row_shards, numbers) if numbers else ():
        finished_items += len(row_shards.shard_samples(number))
        progress_meter.update(finished_items)
    return len(numbers)


def _run_locally(make: Callable[[], RowFunction], row_shards: RowShards, numbers: Sequence[int]) -> Iterator[int]:
    """Compute shards one after another, except for those that another job finishes in the meantime."""
    row_function: RowFunction | None = None
    for number in numbers:
        if row_shards.shard_file(number) is None:
            row_function = row_function or make()
            row_shards.write_shard(number, row_shards.shard_samples(number), row_function)
        yield number
