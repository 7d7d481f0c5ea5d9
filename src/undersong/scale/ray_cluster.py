"""Ray sessions, and numbered jobs on Ray workers, with retries of jobs whose worker died."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from undersong.escaping import describe_error
from undersong.extras import install_hint
from undersong.types import UndersongError

SPARE_CPUS = 2  # logical CPUs besides the workers'; Ray's own tasks need a free one, or wait forever
MAX_TRIES = 3  # attempts at a job whose worker dies
CONNECT_TIMEOUT = 10.0  # seconds until an address counts as dead; Ray itself tries for minutes


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Number of workers (None: as many as fit), resources of each, and `address` of the cluster.

    The address is `auto`, `HOST:PORT` of the head, or None for this machine. A worker computes with `cpus` threads.
    """

    count: int | None = None
    cpus: int = 1
    gpus: float = 0.0
    address: str | None = None


LOCAL_WORKERS = RayWorkers()


@contextmanager
def ray_session(workers: RayWorkers) -> Iterator[Any]:
    """Start or join Ray, and yield it; afterwards restore the previous state. A running Ray is used and stays."""
    if (workers.count is not None and workers.count < 1) or workers.cpus < 1 or workers.gpus < 0:
        raise UndersongError(f"{workers} makes no sense; take at least 1 worker with at least 1 CPU.")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UndersongError(
            f"The engine ray needs Ray ({error}); install the extra: {install_hint('scale')}."
        ) from None
    started_here = not ray.is_initialized()
    if started_here:
        _start_ray(ray, workers)
    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    previous = context.enable_progress_bars, log.level
    context.enable_progress_bars = False  # we report our own progress
    log.setLevel(logging.ERROR)
    try:
        yield ray
    except (
        ray.exceptions.RayActorError,
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
    ) as error:
        reason = describe_error(error)
        raise UndersongError(
            f"Ray's workers died and were not replaced ({reason}); most often memory ran out: give fewer workers, or "
            "more of it, and run again to continue from here."
        ) from None
    finally:
        context.enable_progress_bars = previous[0]
        log.setLevel(previous[1])
        if started_here:
            ray.shutdown()


def _start_ray(ray: Any, workers: RayWorkers) -> None:
    threads = {"env_vars": {"OMP_NUM_THREADS": str(workers.cpus)}}
    options: dict[str, Any] = {"runtime_env": threads, "log_to_driver": False, "configure_logging": False}
    if workers.address is None:
        worker_cpus = workers.count * workers.cpus if workers.count else os.cpu_count() or 1
        # `local`: otherwise Ray joins RAY_ADDRESS, or a cluster that happens to run here.
        ray.init("local", num_cpus=worker_cpus + SPARE_CPUS, include_dashboard=False, **options)
        return
    try:
        if match := re.fullmatch(r"([\w.-]+):(\d+)", workers.address):
            socket.create_connection((match[1], int(match[2])), timeout=CONNECT_TIMEOUT).close()
        ray.init(workers.address, **options)
    except (OSError, OverflowError, RuntimeError, ValueError, ImportError) as error:
        reason = describe_error(error)
        raise UndersongError(
            f"The Ray cluster at {workers.address} cannot be reached ({reason}); check --ray-address, that it runs, "
            "and "
            "that its token is in RAY_AUTH_TOKEN, or leave --ray-address out to work on this machine."
        ) from None


def worker_count(ray: Any, workers: RayWorkers) -> int:
    """Number of workers: as requested, or as many as the cluster has room for."""
    if workers.count is not None:
        return workers.count
    resources = ray.cluster_resources()
    capacity = (resources.get("CPU", 1) - SPARE_CPUS) / workers.cpus
    if workers.gpus:
        capacity = min(capacity, resources.get("GPU", 0) / workers.gpus)
    return max(1, int(capacity))


class RayJobs(Protocol):
    """Numbered jobs, which are pickled to each worker and stay there between jobs."""

    def is_finished(self, number: int) -> bool:
        """True if a job is done: by this task before its worker died, or by another process."""

    def process(self, number: int) -> None:
        """Do one job. Raises UndersongError if it cannot be done."""

    def tries_file(self, number: int) -> Path:
        """File, visible to all workers, that counts the attempts at a job."""

    def describe(self, number: int) -> str:
        """The job in words."""


def run_on_ray(ray: Any, jobs: RayJobs, numbers: Sequence[int], workers: RayWorkers) -> Iterator[int]:
    """Run jobs on Ray; yield the number of each when it is done.

    A worker that dies is replaced, and its job starts again.

    Args:
        ray: The module, from `ray_session`.
        jobs: The jobs.
        numbers: Numbers of the jobs to run.
        workers: The workers.

    Raises:
        UndersongError: A job that cannot be done, or that killed MAX_TRIES workers.
    """
    for number in numbers:
        jobs.tries_file(number).unlink(missing_ok=True)
    dataset = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
    results = dataset.map_batches(
        RayActor,
        fn_constructor_kwargs={"jobs": jobs, "here": os.getcwd()},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            size=min(worker_count(ray, workers), len(numbers)), max_tasks_in_flight_per_actor=2
        ),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
    )
    for row in results.iter_rows():
        if row["refused"]:
            raise UndersongError(row["refused"])
        yield int(row["number"])


class RayActor:
    """An actor of Ray Data."""

    def __init__(self, jobs: RayJobs, here: str) -> None:
        if os.path.isdir(here):
            os.chdir(here)  # a worker starts in Ray's own folder, but paths may be relative to the caller's
        self.jobs = jobs

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run the jobs with these numbers; return them with error messages, because Ray loses the class of an error."""
        return {"number": batch["number"], "refused": [self._process(int(number)) for number in batch["number"]]}

    def _process(self, number: int) -> str:
        if self.jobs.is_finished(number):
            return ""
        if self._count_try(number) > MAX_TRIES:
            return (
                f"Workers died {MAX_TRIES} times at {self.jobs.describe(number)}; give more memory, or leave out the "
                "items that kill them, and run again: finished work is kept."
            )
        try:
            self.jobs.process(number)
        except UndersongError as error:
            return str(error)
        return ""

    def _count_try(self, number: int) -> int:
        """Count this attempt. Ray restarts a dead worker's job forever, and an item may kill every worker."""
        with self.jobs.tries_file(number).open("ab") as file:
            file.write(b".")
            return file.tell()
