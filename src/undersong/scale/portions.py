"""A pass over many items whose results are small rows: in shards on disk, resumed after a kill, shared out by jobs.

What decoding tells of clips and what an ASR model understood are made so.  A shard is there when its file is, which is
written beside its name and renamed when it is whole.  Knows files of rows; does not know what they say or who computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.encoders.progress import Watcher, watch
from undersong.scale.work import parse_shard
from undersong.store import replacing
from undersong.types import Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

Pass = Callable[[Sequence[Sample]], "pa.Table"]  # items -> a row each, in order
Spread = Callable[[Callable[[], Pass], "Portions", Sequence[int]], Iterator[int]]  # numbers, each when it is there


@dataclass(frozen=True, slots=True)
class Portions:
    """`samples` in shards of `rows` at `folder`, which is named by all that the rows depend on."""

    folder: Path
    samples: Sequence[Sample]
    rows: int

    @property
    def shards(self) -> int:
        """How many there are; the last may be smaller."""
        return -(-len(self.samples) // self.rows)

    def file(self, number: int) -> Path:
        """The rows of a shard: it is there when it is whole."""
        return self.folder / f"rows-{self.rows}-{number:05d}.parquet"  # another shard size is other files

    def part(self, number: int) -> Sequence[Sample]:
        """The items of a shard."""
        return self.samples[number * self.rows : (number + 1) * self.rows]

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there, in order."""
        return [number for number in range(self.shards) if not self.file(number).is_file()]

    def table(self) -> pa.Table:
        """All rows, in the items' order.  Raises UndersongError for a damaged shard, which goes, and is made anew."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        found = []
        for number in range(self.shards):
            try:
                found.append(pq.read_table(self.file(number)))
            except (OSError, pa.ArrowException) as error:
                self.file(number).unlink(missing_ok=True)
                raise UndersongError(
                    f"{self.file(number)} cannot be read ({error}); run again, which makes it anew."
                ) from error
        return pa.concat_tables(found)


def write_rows(file: Path, samples: Sequence[Sample], run: Pass) -> None:
    """The rows of a shard, safe from kills."""
    import pyarrow.parquet as pq

    table = run(samples)
    if table.num_rows != len(samples):
        raise UndersongError(
            f"{table.num_rows} rows were made of the {len(samples)} items of {file.name}; every item must have one."
        )
    with replacing(file) as temporary:
        pq.write_table(table, temporary)


def fill(
    portions: Portions,
    make: Callable[[], Pass],
    *,
    shard: str | None = None,
    spread: Spread | None = None,
    progress: Watcher | None = None,
) -> int:
    """Makes the shards that are missing (`shard`: that job's part of them, `"i/n"`); how many those were.

    `make` loads what the pass needs, and is not called where nothing is missing.  `spread`: who computes, where it is
    not this process.  Shards that another job made in the meantime are left as they are.
    """
    turn = parse_shard(shard)
    numbers = [number for number in portions.missing() if turn(number)]
    if shard is None:
        numbers.reverse()  # jobs that still work come from the front
    clock, done = watch(sum(len(portions.part(number)) for number in numbers), progress), 0
    for number in (spread or _here)(make, portions, numbers) if numbers else ():
        done += len(portions.part(number))
        clock.at(done)
    return len(numbers)


def _here(make: Callable[[], Pass], portions: Portions, numbers: Sequence[int]) -> Iterator[int]:
    """One after the other, but for those that another job made in the meantime."""
    run: Pass | None = None
    for number in numbers:
        if not portions.file(number).is_file():
            run = run or make()
            write_rows(portions.file(number), portions.part(number), run)
        yield number
