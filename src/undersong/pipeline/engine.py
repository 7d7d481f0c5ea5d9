"""Where a pool is embedded: at once, in shards, or on Ray.  Knows engines and folders; does not know distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong.types import Embeddings, Sample, UndersongError

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
    """Raises UndersongError for what no engine can do; loads nothing."""
    if engine.name not in ENGINES:
        raise UndersongError(f"There is no engine {engine.name!r}; take one of {', '.join(ENGINES)}.")
    if engine.name == "local" and (engine.address or engine.workers or engine.gpus):
        raise UndersongError("--address, --workers and --gpus belong to --engine ray; add it, or leave them out.")


def embed_pool(
    engine: Engine, encoder: str, pool: Sequence[Sample], fit: Sequence[Sample], folder: Path, device: str = "cpu"
) -> Embeddings | None:
    """The pool's vectors by way of shards at `folder`; None: this job's shards are done, and others are to come."""
    from undersong.encoders.options import parse_encoder
    from undersong.encoders.vectors import read_embeddings
    from undersong.models.folders import model_hash

    weights = parse_encoder(encoder).weights
    version = model_hash(weights) if weights else ""  # jobs may be days apart, and a folder keeps its name
    how: dict[str, Any] = {"shard": engine.shard, "fit": fit, "device": device, "version": version}
    if engine.name == "ray":
        from undersong.scale.ray_cluster import Workers
        from undersong.scale.ray_engine import embed_on_ray

        workers = Workers(count=engine.workers, gpus=engine.gpus, address=engine.address)
        found = embed_on_ray(pool, encoder, folder, workers, **how)
    else:
        from undersong.scale import embed_shards

        found = embed_shards(pool, encoder, folder, **how)
    return read_embeddings(found.folder) if found.complete else None
