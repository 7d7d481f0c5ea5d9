"""Engines for a pass over a corpus: in one call, in shards, one job's part of the shards, or on Ray."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from undersong.options import Option
from undersong.store.atomic import remove_path, sweep_removed
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.encoders.batching import ProgressCallback
    from undersong.scale.ray_cluster import RayWorkers
    from undersong.scale.row_shards import RowFunction, RowShards
    from undersong.store.store import Artifact

ENGINES = ("local", "ray")


@dataclass(frozen=True, slots=True)
class Engine:
    """Execution engine.

    Attributes:
        name: local or ray.
        shard: This job's part only, as "i/n".
        address: Address of a Ray cluster; None for this machine.
        workers: Number of Ray workers.
        gpus: GPUs per Ray worker.
    """

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
        """True if a pool is embedded in one call, with nothing kept between runs."""
        return self.name == "local" and self.shard is None


DEFAULT_ENGINE: Engine = Engine()


def check_engine(engine: Engine) -> None:
    """Check the options of an engine, without loading it.

    Raises:
        UndersongError: The options do not fit together.
    """
    if engine.name not in ENGINES:
        raise UndersongError(f"There is no engine {engine.name!r}; choose one of {', '.join(ENGINES)}.")
    if engine.name == "local" and (engine.address or engine.workers or engine.gpus):
        raise UndersongError(
            "--ray-address, --ray-workers and --gpus-per-worker need --engine ray; add it, or leave them out."
        )
    if engine.shard is not None:
        from undersong.scale.row_shards import parse_shard

        parse_shard(engine.shard)  # also if nothing is left to embed


def uses_shards(engine: Engine, items: int, rows: int, folder: Path) -> bool:
    """Return True if a pass over a corpus is made in shards.

    This is so if the engine needs shards, if the pass is longer than one shard, or if shards of it exist already.

    Args:
        engine: The engine of the pass.
        items: Number of items in the corpus.
        rows: Number of items in a shard.
        folder: Folder of the shards.
    """
    return not engine.is_single_pass or items > rows or folder.exists()


def shards_path(path: Path) -> Path:
    """The folder for the shards of an artifact at `path` (or of its draft), until it is whole."""
    return path.with_suffix(".shards")


def remove_shards(artifact: Artifact) -> None:
    """Remove the shards of an artifact that is there (to a plan it may not be); another process may do the same."""
    folder = shards_path(artifact.location)
    if artifact.location.exists():
        with suppress(OSError):  # of a store that cannot be written
            sweep_removed(folder.parent, re.escape(folder.name))
            remove_path(folder)


def fill_missing_shards(
    engine: Engine, shards: RowShards, make_pass: Callable[[], RowFunction], progress: ProgressCallback | None = None
) -> None:
    """Make the missing shards of a pass, or this job's part of them.

    Args:
        engine: The engine.
        shards: The shards.
        make_pass: Factory of the pass; it must pickle.
        progress: Called with the number of finished items.
    """
    from undersong.scale.row_shards import fill_row_shards

    scheduler = None
    if engine.name == "ray":
        from undersong.scale.ray_engine import ray_scheduler

        scheduler = ray_scheduler(ray_workers(engine))
    fill_row_shards(shards, make_pass, shard=engine.shard, scheduler=scheduler, progress=progress)


def ray_workers(engine: Engine) -> RayWorkers:
    """Ray workers of an engine."""
    from undersong.scale.ray_cluster import RayWorkers

    return RayWorkers(count=engine.workers, gpus=engine.gpus, address=engine.address)
