"""Execution engines for embedding a corpus: in one pass, in shards, or on Ray."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from undersong.options import Option
from undersong.types import Encoder, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.encoders.batching import ProgressCallback
    from undersong.scale.ray_cluster import RayWorkers
    from undersong.scale.row_shards import RowFunction, RowShards
    from undersong.store import Artifact

ENGINES = ("local", "ray")


@dataclass(frozen=True, slots=True)
class Engine:
    """Where a corpus is embedded; none of it changes a result."""

    name: Annotated[str, Option("Execution engine: local | ray (extra `scale`).", "--engine")] = "local"
    shard: Annotated[
        str | None,
        Option(
            "Embed only part I of N, from 0, into the store. Run the command again without it after all parts.",
            metavar="I/N",
        ),
    ] = None
    address: Annotated[
        str | None, Option("Address of a Ray cluster, HOST:PORT or auto. Default: this machine.", "--ray-address")
    ] = None
    workers: Annotated[
        int | None, Option("Number of Ray workers. Default: as many as fit.", "--ray-workers", min=1)
    ] = None
    gpus: Annotated[float, Option("GPUs for each Ray worker.", "--gpus-per-worker", min=0)] = 0.0

    @property
    def is_single_pass(self) -> bool:
        """Whether a pool is embedded in one call, with nothing kept between runs."""
        return self.name == "local" and self.shard is None


DEFAULT_ENGINE = Engine()


def check_engine(engine: Engine) -> None:
    """Raises UndersongError for what no engine can do; loads no engine."""
    if engine.name not in ENGINES:
        raise UndersongError(f"There is no engine {engine.name!r}; take one of {', '.join(ENGINES)}.")
    if engine.name == "local" and (engine.address or engine.workers or engine.gpus):
        raise UndersongError(
            "--ray-address, --ray-workers and --gpus-per-worker need --engine ray; add it, or leave them out."
        )
    if engine.shard is not None:
        from undersong.scale.embedding_job import parse_shard

        parse_shard(engine.shard)  # also where there is nothing left to embed


def uses_shards(engine: Engine, items: int, folder: Path) -> bool:
    """Whether a corpus is embedded in shards at `folder`: where more than one is to be lost, or some are there."""
    from undersong.scale import embedding_job

    return (
        not engine.is_single_pass
        or items > embedding_job.SHARD_ROWS
        or folder.exists()
        or any(folder.parent.glob(f"{folder.name}.*"))
    )


def shards_path(path: Path) -> Path:
    """Where the shards of an artifact at `place` (or of its draft) lie, until it is whole."""
    return path.with_suffix(".portions")


def remove_shards(folder: Path, artifact: Artifact) -> None:
    """Removes the shards of an artifact that is there (to a plan it may not be); another process may do the same."""
    if artifact.path.exists() and folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def fill_missing_shards(
    engine: Engine, shards: RowShards, make_pass: Callable[[], RowFunction], progress: ProgressCallback | None = None
) -> None:
    """Makes the missing shards of a pass, or this job's part of them; `make` has to pickle."""
    from undersong.scale.row_shards import fill_row_shards

    run_remotely = None
    if engine.name == "ray":
        from undersong.scale.ray_engine import ray_scheduler

        run_remotely = ray_scheduler(ray_workers(engine))
    fill_row_shards(shards, make_pass, shard=engine.shard, scheduler=run_remotely, progress=progress)


def ray_workers(engine: Engine) -> RayWorkers:
    """The Ray workers that an engine asks for."""
    from undersong.scale.ray_cluster import RayWorkers

    return RayWorkers(count=engine.workers, gpus=engine.gpus, address=engine.address)


def embed_pool(
    engine: Engine,
    encoder: str,
    pool: Sequence[Sample],
    folder: Path,
    make_encoder: Callable[[], Encoder],
    progress: ProgressCallback | None = None,
) -> bool:
    """Embed a pool in shards at `folder`, which is named by all that its vectors depend on; False: this job's shards
    are done, and others are to come."""
    from undersong.scale import embedding_job

    options: dict[str, Any] = {
        "shard": engine.shard,
        "rows": embedding_job.SHARD_ROWS,
        "make": make_encoder,
        "progress": progress,
    }
    if engine.name == "ray":
        from undersong.scale.ray_engine import embed_on_ray

        return embed_on_ray(pool, encoder, folder, ray_workers(engine), **options).complete
    return embedding_job.embed_shards(pool, encoder, folder, **options).complete
