"""Row passes on Ray: the same shards as the local engine, computed by Ray workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from undersong.scale.ray_cluster import LOCAL_WORKERS, RayWorkers, ray_session, run_on_ray
from undersong.scale.row_shards import RowFunction, RowShards, ShardScheduler
from undersong.types import Sample


def ray_scheduler(workers: RayWorkers = LOCAL_WORKERS) -> ShardScheduler:
    """Have shards computed by Ray's workers: each loads what the pass needs once, reads its items from Parquet and
    writes its rows to Parquet.

    What makes the pass is sent to the workers, so it must pickle.  A worker that dies is replaced and its shard made
    again.  The bits are those of the local engine as far as one machine's are (other processors, or another number of
    threads, may round otherwise).

    Raises:
        UndersongError: On first use, where Ray is not installed or the cluster cannot be reached.
    """

    def scheduler(make: Callable[[], RowFunction], row_shards: RowShards, numbers: Sequence[int]) -> Iterator[int]:
        jobs = RowShardJobs(row_shards.folder, row_shards.rows, make)
        with ray_session(workers) as ray:
            for number in numbers:
                _write_shard_samples(row_shards.shard_samples(number), jobs.samples_file(number))
            yield from run_on_ray(ray, jobs, numbers, workers)
        jobs.clean_up(numbers)

    return scheduler


class RowShardJobs:
    """Jobs of one row shard each. A worker loads what the pass needs at its first shard and keeps it."""

    def __init__(self, folder: Path, rows: int, make: Callable[[], RowFunction]) -> None:
        self.row_shards, self.make = RowShards(folder, (), rows), make
        self.row_function: RowFunction | None = None

    def samples_file(self, number: int) -> Path:
        """A shard's items as a manifest, for a worker that is told no more than the number."""
        return self.row_shards.folder / "samples" / f"samples-{self.row_shards.rows}-{number:05d}.parquet"

    def is_finished(self, number: int) -> bool:
        return self.row_shards.shard_file(number) is not None

    def process(self, number: int) -> None:
        from undersong.corpora.manifest import read_manifest

        self.row_function = self.row_function or self.make()
        self.row_shards.write_shard(number, read_manifest(self.samples_file(number)).samples, self.row_function)

    def tries_file(self, number: int) -> Path:
        return self.samples_file(number).with_suffix(".tries")

    def describe(self, number: int) -> str:
        return f"shard {number} ({self.samples_file(number)})"

    def clean_up(self, numbers: Sequence[int]) -> None:
        """Remove the items of these jobs; another process may still need those of its own."""
        for number in numbers:
            self.samples_file(number).unlink(missing_ok=True)
            self.tries_file(number).unlink(missing_ok=True)
        with suppress(OSError):
            self.samples_file(0).parent.rmdir()


def _write_shard_samples(samples: Sequence[Sample], file: Path) -> None:
    """Write a shard's items to Parquet: a worker reads its own and never holds the whole corpus."""
    from undersong.corpora.manifest import write_manifest

    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(samples, file)
