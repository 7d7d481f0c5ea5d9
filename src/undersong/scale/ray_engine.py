"""Embedding, row passes and proximity on Ray: the same shards as the local engine, computed by Ray workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from undersong.encoders import ENCODERS_THAT_FIT
from undersong.encoders.batching import ProgressCallback
from undersong.encoders.embeddings import ROWS_PER_FILE
from undersong.scale.embedding_job import (
    SHARD_ROWS,
    EmbeddingJob,
    EmbeddingResult,
    embed_samples,
    finish_job,
    finished_result,
    parse_shard,
    plan_embedding,
    shard_progress,
)
from undersong.scale.embedding_shards import EmbeddingShards
from undersong.scale.ray_cluster import LOCAL_WORKERS, MAX_TRIES, RayWorkers, ray_session, run_on_ray
from undersong.scale.row_shards import RowFunction, RowShards, ShardScheduler, write_rows
from undersong.scale.streamed_proximity import proximity_shards
from undersong.types import Embeddings, Encoder, Sample

ResultT = TypeVar("ResultT")


def embed_on_ray(
    samples: Sequence[Sample] | str | Path,
    encoder: str,
    folder: str | Path,
    workers: RayWorkers = LOCAL_WORKERS,
    *,
    shard: str | None = None,
    rows: int = SHARD_ROWS,
    fit: Sequence[Sample] | None = None,
    device: str = "cpu",
    make: Callable[[], Encoder] | None = None,
    version: str = "",
    progress: ProgressCallback | None = None,
) -> EmbeddingResult:
    """`embed_shards` by Ray's workers: the same arguments, files, bits and errors.

    (The same bits as far as one machine's: other processors, or another number of threads, may round otherwise.)
    `make` is sent to the workers, so it must pickle.  A worker that dies is replaced and its shard made again.
    Raises UndersongError also when Ray is not installed or the cluster cannot be reached.
    """
    job = plan_embedding(samples, encoder, folder, rows=rows, fit=fit, device=device, make=make, version=version)
    is_assigned = parse_shard(shard)
    if job.shard_set.is_finished():
        return finished_result(job, 0)
    numbers = [number for number in job.shard_set.missing_shards() if is_assigned(number)]
    if numbers:
        on_done = shard_progress(job.shard_set, numbers, progress)
        with ray_session(workers) as ray:
            for number in numbers:
                _write_shard_samples(job.samples[job.shard_set.item_slice(number)], job.shard_set.samples(number))
            for number in run_on_ray(ray, _embedding_jobs(job), numbers, workers):
                on_done(number)
    return finish_job(job, len(numbers), shard)


def proximity_on_ray(
    axis: str,
    harm_set: str,
    pool: str | Path,
    harm: Embeddings,
    out: str | Path,
    workers: RayWorkers = LOCAL_WORKERS,
    *,
    score: str = "nearest",
    center: bool = False,
    max_quarantined: float = 0.01,
    shard: int = ROWS_PER_FILE,
) -> list[Path]:
    """`proximity_shards` with the distances measured by Ray's workers: the same files, bits and errors."""
    with ray_session(workers) as ray:

        def scheduler(measure: Callable[[int], ResultT], numbers: Iterable[int]) -> Iterator[ResultT]:
            return _map_on_ray(ray, measure, numbers, workers)

        return proximity_shards(
            axis, harm_set, pool, harm, out,
            score=score, center=center, max_quarantined=max_quarantined, shard=shard, scheduler=scheduler,
        )  # fmt: skip


def ray_scheduler(workers: RayWorkers = LOCAL_WORKERS) -> ShardScheduler:
    """How `portions.fill` has its shards made by Ray's workers: each loads what the pass needs once, reads its items
    from Parquet and writes its rows to Parquet."""

    def scheduler(make: Callable[[], RowFunction], row_shards: RowShards, numbers: Sequence[int]) -> Iterator[int]:
        jobs = RowShardJobs(row_shards.folder, row_shards.rows, make)
        for number in numbers:
            _write_shard_samples(row_shards.shard_samples(number), jobs.samples(number))
        with ray_session(workers) as ray:
            yield from run_on_ray(ray, jobs, numbers, workers)
        jobs.clean_up(numbers)

    return scheduler


class RowShardJobs:
    """Jobs of one shard of a pass each: a worker loads what the pass needs at its first shard and keeps that."""

    def __init__(self, folder: Path, rows: int, make: Callable[[], RowFunction]) -> None:
        self.row_shards, self.make = RowShards(folder, (), rows), make
        self.row_function: RowFunction | None = None

    def samples(self, number: int) -> Path:
        """A shard's items as a manifest, for a worker that is told no more than the number."""
        return self.row_shards.folder / "samples" / f"samples-{self.row_shards.rows}-{number:05d}.parquet"

    def is_finished(self, number: int) -> bool:
        return self.row_shards.shard_file(number).is_file()

    def process(self, number: int) -> None:
        from undersong.corpora.manifest import read_manifest

        self.row_function = self.row_function or self.make()
        write_rows(self.row_shards.shard_file(number), read_manifest(self.samples(number)).samples, self.row_function)

    def tries_file(self, number: int) -> Path:
        return self.samples(number).with_suffix(".tries")

    def describe(self, number: int) -> str:
        return f"shard {number} ({self.samples(number)})"

    def clean_up(self, numbers: Sequence[int]) -> None:
        """Takes away what these jobs were told; another process may still need what it told its own."""
        for number in numbers:
            self.samples(number).unlink(missing_ok=True)
            self.tries_file(number).unlink(missing_ok=True)
        with suppress(OSError):
            self.samples(0).parent.rmdir()


def _write_shard_samples(samples: Sequence[Sample], file: Path) -> None:
    """A shard's items into a Parquet file: a worker reads its own and never holds the corpus."""
    from undersong.corpora.manifest import write_manifest

    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(samples, file)


class EmbeddingShardJobs:
    """Jobs of one shard each: a worker makes its encoder at the first and keeps it; of a shard it keeps nothing."""

    def __init__(self, shard_set: EmbeddingShards, make: Callable[[], Encoder]) -> None:
        self.shard_set, self.make = shard_set, make
        self.encoder: Encoder | None = None

    def is_finished(self, number: int) -> bool:
        return self.shard_set.marker(number).exists()

    def process(self, number: int) -> None:
        from undersong.corpora.manifest import read_manifest

        self.encoder = self.encoder or self.make()
        self.shard_set.write_shard(
            number, embed_samples(self.encoder, read_manifest(self.shard_set.samples(number)).samples)
        )

    def tries_file(self, number: int) -> Path:
        return self.shard_set.samples(number).with_suffix(".tries")

    def describe(self, number: int) -> str:
        return f"shard {number} ({self.shard_set.samples(number)})"


def _embedding_jobs(job: EmbeddingJob) -> EmbeddingShardJobs:
    make = job.make
    if job.encoder.partition(":")[0] in ENCODERS_THAT_FIT:
        make = _FittedEncoder(job.make())  # fitted once, here: its texts need not travel
    return EmbeddingShardJobs(job.shard_set, make)


@dataclass(frozen=True, slots=True)
class _FittedEncoder:
    encoder: Encoder

    def __call__(self) -> Encoder:
        return self.encoder


def _map_on_ray(
    ray: Any, measure: Callable[[int], ResultT], numbers: Iterable[int], workers: RayWorkers
) -> Iterator[ResultT]:
    """`measure` of each number, in order.  What all calls share goes to each node once."""
    measure_ref = ray.put(measure)
    task = ray.remote(num_cpus=workers.cpus, max_retries=MAX_TRIES)(_apply)
    pending = [task.remote(measure_ref, number) for number in numbers]
    for result in pending:
        yield ray.get(result)


def _apply(measure: Callable[[int], ResultT], number: int) -> ResultT:
    return measure(number)
