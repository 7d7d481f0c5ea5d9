"""The same shards on Ray: one encoder a worker, Parquet in and out, on this machine or a cluster.

A worker is told a shard's number, reads its items, embeds them in one call and writes the shard and its marker, as
`work.py` does: so both engines make the same files and each takes up where the other was killed.  Every node must see
the folder and the audio under the same paths.  Ray is the extra `scale`; nothing here is imported before it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from undersong.encoders import ENCODERS_THAT_FIT
from undersong.encoders.progress import Watcher
from undersong.scale.parts import Parts
from undersong.scale.portions import Pass, Portions, Spread, write_rows
from undersong.scale.ray_cluster import HERE, RETRIES, Workers, cluster
from undersong.scale.ray_jobs import done_on_ray
from undersong.scale.shards import SHARD, proximity_shards
from undersong.scale.work import ROWS, Embedded, Work, concluded, done, embed, parse_shard, plan, watch_items
from undersong.types import Embeddings, Encoder, Sample

Made = TypeVar("Made")


def embed_on_ray(
    samples: Sequence[Sample] | str | Path,
    encoder: str,
    folder: str | Path,
    workers: Workers = HERE,
    *,
    shard: str | None = None,
    rows: int = ROWS,
    fit: Sequence[Sample] | None = None,
    device: str = "cpu",
    make: Callable[[], Encoder] | None = None,
    version: str = "",
    progress: Watcher | None = None,
) -> Embedded:
    """`embed_shards` by Ray's workers: the same arguments, files, bits and errors.

    (The same bits as far as one machine's: other processors, or another number of threads, may round otherwise.)
    `make` is sent to the workers, so it must pickle.  A worker that dies is replaced and its shard made again.
    Raises UndersongError also when Ray is not installed or the cluster cannot be reached.
    """
    work = plan(samples, encoder, folder, rows=rows, fit=fit, device=device, make=make, version=version)
    turn = parse_shard(shard)
    if work.parts.finished():
        return done(work, 0)
    numbers = [number for number in work.parts.missing() if turn(number)]
    if numbers:
        tell = watch_items(work.parts, numbers, progress)
        with cluster(workers) as ray:
            for number in numbers:
                _hand_out(work.samples[work.parts.span(number)], work.parts.samples(number))
            for number in done_on_ray(ray, _shards(work), numbers, workers):
                tell(number)
    return concluded(work, len(numbers), shard)


def proximity_on_ray(
    axis: str,
    harm_set: str,
    pool: str | Path,
    harm: Embeddings,
    out: str | Path,
    workers: Workers = HERE,
    *,
    score: str = "nearest",
    centre: bool = False,
    max_quarantined: float = 0.01,
    shard: int = SHARD,
) -> list[Path]:
    """`proximity_shards` with the distances measured by Ray's workers: the same files, bits and errors."""
    with cluster(workers) as ray:

        def spread(measure: Callable[[int], Made], numbers: Iterable[int]) -> Iterator[Made]:
            return _measured(ray, measure, numbers, workers)

        return proximity_shards(
            axis, harm_set, pool, harm, out,
            score=score, centre=centre, max_quarantined=max_quarantined, shard=shard, spread=spread,
        )  # fmt: skip


def spread_on_ray(workers: Workers = HERE) -> Spread:
    """How `portions.fill` has its shards made by Ray's workers: each loads what the pass needs once, reads its items
    from Parquet and writes its rows to Parquet."""

    def spread(make: Callable[[], Pass], portions: Portions, numbers: Sequence[int]) -> Iterator[int]:
        passes = Passes(portions.folder, portions.rows, make)
        for number in numbers:
            _hand_out(portions.part(number), passes.samples(number))
        with cluster(workers) as ray:
            yield from done_on_ray(ray, passes, numbers, workers)
        passes.tidy(numbers)

    return spread


class Passes:
    """Jobs of one shard of a pass each: a worker loads what the pass needs at its first shard and keeps that."""

    def __init__(self, folder: Path, rows: int, make: Callable[[], Pass]) -> None:
        self.portions, self.make = Portions(folder, (), rows), make
        self.run: Pass | None = None

    def samples(self, number: int) -> Path:
        """A shard's items as a manifest, for a worker that is told no more than the number."""
        return self.portions.folder / "samples" / f"samples-{self.portions.rows}-{number:05d}.parquet"

    def finished(self, number: int) -> bool:
        return self.portions.file(number).is_file()

    def do(self, number: int) -> None:
        from undersong.corpora.forms.manifest import read_manifest

        self.run = self.run or self.make()
        write_rows(self.portions.file(number), read_manifest(self.samples(number)).samples, self.run)

    def tries(self, number: int) -> Path:
        return self.samples(number).with_suffix(".tries")

    def named(self, number: int) -> str:
        return f"shard {number} ({self.samples(number)})"

    def tidy(self, numbers: Sequence[int]) -> None:
        """Takes away what these jobs were told; another process may still need what it told its own."""
        for number in numbers:
            self.samples(number).unlink(missing_ok=True)
            self.tries(number).unlink(missing_ok=True)
        with suppress(OSError):
            self.samples(0).parent.rmdir()


def _hand_out(samples: Sequence[Sample], file: Path) -> None:
    """A shard's items into a Parquet file: a worker reads its own and never holds the corpus."""
    from undersong.corpora.forms.manifest import write_manifest

    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(samples, file)


class Shards:
    """Jobs of one shard each: a worker makes its encoder at the first and keeps it; of a shard it keeps nothing."""

    def __init__(self, parts: Parts, make: Callable[[], Encoder]) -> None:
        self.parts, self.make = parts, make
        self.encoder: Encoder | None = None

    def finished(self, number: int) -> bool:
        return self.parts.marker(number).exists()

    def do(self, number: int) -> None:
        from undersong.corpora.forms.manifest import read_manifest

        self.encoder = self.encoder or self.make()
        self.parts.write(number, embed(self.encoder, read_manifest(self.parts.samples(number)).samples))

    def tries(self, number: int) -> Path:
        return self.parts.samples(number).with_suffix(".tries")

    def named(self, number: int) -> str:
        return f"shard {number} ({self.parts.samples(number)})"


def _shards(work: Work) -> Shards:
    make = work.make
    if work.encoder.partition(":")[0] in ENCODERS_THAT_FIT:
        make = _Ready(work.make())  # fitted once, here: its texts need not travel
    return Shards(work.parts, make)


@dataclass(frozen=True, slots=True)
class _Ready:
    encoder: Encoder

    def __call__(self) -> Encoder:
        return self.encoder


def _measured(ray: Any, measure: Callable[[int], Made], numbers: Iterable[int], workers: Workers) -> Iterator[Made]:
    """`measure` of each number, in order.  What all calls share goes to each node once."""
    shared = ray.put(measure)
    task = ray.remote(num_cpus=workers.cpus, max_retries=RETRIES)(_apply)
    waiting = [task.remote(shared, number) for number in numbers]
    for result in waiting:
        yield ray.get(result)


def _apply(measure: Callable[[int], Made], number: int) -> Made:
    return measure(number)
