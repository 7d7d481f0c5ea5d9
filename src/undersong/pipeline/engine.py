"""Where a pool is embedded: at once, in shards, or on Ray.  Knows engines and folders; does not know distances."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.types import Encoder, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.encoders.progress import Watcher
    from undersong.scale.portions import Pass, Portions
    from undersong.scale.ray_cluster import Workers
    from undersong.store import Artefact

ENGINES = ("local", "ray")


@dataclass(frozen=True, slots=True)
class Engine:
    """`shard` ("i/n"): this job's part only.  `address`: of a Ray cluster, None for this machine."""

    name: str = "local"
    shard: str | None = None
    address: str | None = None
    workers: int | None = None
    gpus: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether a pool is embedded in one call, with nothing kept between runs."""
        return self.name == "local" and self.shard is None


AT_ONCE = Engine()


def check_engine(engine: Engine) -> None:
    """Raises UndersongError for what no engine can do; loads no engine."""
    if engine.name not in ENGINES:
        raise UndersongError(f"There is no engine {engine.name!r}; take one of {', '.join(ENGINES)}.")
    if engine.name == "local" and (engine.address or engine.workers or engine.gpus):
        raise UndersongError("--address, --workers and --gpus belong to --engine ray; add it, or leave them out.")
    if engine.shard is not None:
        from undersong.scale.work import parse_shard

        parse_shard(engine.shard)  # also where there is nothing left to embed


def in_shards(engine: Engine, items: int, folder: Path) -> bool:
    """Whether a corpus is embedded in shards at `folder`: where more than one is to be lost, or some are there."""
    from undersong.scale import work

    return not engine.plain or items > work.ROWS or folder.exists() or any(folder.parent.glob(f"{folder.name}.*"))


def portions_of(place: Path) -> Path:
    """Where the shards of an artefact at `place` (or of its draft) lie, until it is whole."""
    return place.with_suffix(".portions")


def clear(folder: Path, made: Artefact) -> None:
    """Removes the shards of an artefact that is there (to a plan it may not be); another process may do the same."""
    if made.path.exists() and folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def pass_over(engine: Engine, portions: Portions, make: Callable[[], Pass], progress: Watcher | None = None) -> None:
    """Makes the missing shards of a pass, or this job's part of them; `make` has to pickle."""
    from undersong.scale.portions import fill

    spread = None
    if engine.name == "ray":
        from undersong.scale.ray_engine import spread_on_ray

        spread = spread_on_ray(workers_of(engine))
    fill(portions, make, shard=engine.shard, spread=spread, progress=progress)


def workers_of(engine: Engine) -> Workers:
    """The Ray workers that an engine asks for."""
    from undersong.scale.ray_cluster import Workers

    return Workers(count=engine.workers, gpus=engine.gpus, address=engine.address)


def embed_pool(
    engine: Engine,
    encoder: str,
    pool: Sequence[Sample],
    folder: Path,
    make: Callable[[], Encoder],
    progress: Watcher | None = None,
) -> bool:
    """Embed a pool in shards at `folder`, which is named by all that its vectors depend on; False: this job's shards
    are done, and others are to come."""
    from undersong.scale import work

    how: dict[str, Any] = {"shard": engine.shard, "rows": work.ROWS, "make": make, "progress": progress}
    if engine.name == "ray":
        from undersong.scale.ray_engine import embed_on_ray

        return embed_on_ray(pool, encoder, folder, workers_of(engine), **how).complete
    return work.embed_shards(pool, encoder, folder, **how).complete
