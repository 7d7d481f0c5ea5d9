"""Ray, started here or joined, and left as it was found.  Knows workers and clusters; does not know what they do."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from undersong.types import UndersongError

SPARE = 2  # logical CPUs beside the workers': Ray's own tasks wait for one, and with none free for ever
RETRIES = 3  # of a task whose worker died
PATIENCE = 10.0  # seconds until an address counts as dead; Ray itself tries for minutes


@dataclass(frozen=True, slots=True)
class Workers:
    """How many there are (None: as many as fit), what each takes, and where: `address` of a cluster (`auto`, or
    `HOST:PORT` of its head), None for this machine.  `cpus` is also the threads a worker computes with."""

    count: int | None = None
    cpus: int = 1
    gpus: float = 0.0
    address: str | None = None


HERE = Workers()


@contextmanager
def cluster(workers: Workers) -> Iterator[Any]:
    """Ray, started or joined, and left as it was found: what ran before is used and stays."""
    if (workers.count is not None and workers.count < 1) or workers.cpus < 1 or workers.gpus < 0:
        raise UndersongError(f"{workers} makes no sense; take at least 1 worker with at least 1 CPU.")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UndersongError(
            f"The engine ray needs Ray ({error}); install the extra: pip install 'undersong[scale]'."
        ) from None
    ours = not ray.is_initialized()
    if ours:
        _start(ray, workers)
    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, log.level
    context.enable_progress_bars = False  # our own progress is told
    log.setLevel(logging.ERROR)
    try:
        yield ray
    except (
        ray.exceptions.RayActorError,
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise UndersongError(
            f"Ray's workers died and were not replaced ({reason}); most often memory ran out: give fewer workers, or "
            "more of it, and run again, which goes on from here."
        ) from None
    finally:
        context.enable_progress_bars = before[0]
        log.setLevel(before[1])
        if ours:
            ray.shutdown()


def _start(ray: Any, workers: Workers) -> None:
    threads = {"env_vars": {"OMP_NUM_THREADS": str(workers.cpus)}}
    options: dict[str, Any] = {"runtime_env": threads, "log_to_driver": False, "configure_logging": False}
    if workers.address is None:
        wanted = workers.count * workers.cpus if workers.count else os.cpu_count() or 1
        # `local`: RAY_ADDRESS, or a cluster that happens to run here, would else be joined without being asked for.
        ray.init("local", num_cpus=wanted + SPARE, include_dashboard=False, **options)
        return
    try:
        if found := re.fullmatch(r"([\w.-]+):(\d+)", workers.address):
            socket.create_connection((found[1], int(found[2])), timeout=PATIENCE).close()
        ray.init(workers.address, **options)
    except (OSError, OverflowError, RuntimeError, ValueError, ImportError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise UndersongError(
            f"The Ray cluster at {workers.address} cannot be reached ({reason}); check --address, that it runs, and "
            "that its token is in RAY_AUTH_TOKEN, or leave --address out to work on this machine."
        ) from None


def room(ray: Any, workers: Workers) -> int:
    """As many workers as were asked for, or as the cluster has room for now."""
    if workers.count is not None:
        return workers.count
    there = ray.cluster_resources()
    fits = (there.get("CPU", 1) - SPARE) / workers.cpus
    if workers.gpus:
        fits = min(fits, there.get("GPU", 0) / workers.gpus)
    return max(1, int(fits))
