"""Numbered jobs on Ray: a worker keeps what its jobs share and is told numbers.  Knows deaths, tries and refusals; does
not know what a job is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from undersong.scale.ray_cluster import MAX_TRIES, RayWorkers, worker_count
from undersong.types import UndersongError


class RayJobs(Protocol):
    """What travels to each worker, by pickle, and stays there between jobs."""

    def is_finished(self, number: int) -> bool:
        """Whether it is done already: by this very task before its worker died, or by somebody else."""

    def process(self, number: int) -> None:
        """Does one; raises UndersongError where it cannot be done."""

    def tries_file(self, number: int) -> Path:
        """A file, seen by all workers, that counts how often the job was begun."""

    def describe(self, number: int) -> str:
        """The job in words."""


def run_on_ray(ray: Any, jobs: RayJobs, numbers: Sequence[int], workers: RayWorkers) -> Iterator[int]:
    """Has the jobs done; yields each one's number when it is.

    A worker that dies is replaced and its job begun again.  Raises UndersongError where a job is refused, or where
    workers died at it `RETRIES` times.
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
            os.chdir(here)  # a worker starts in a folder of Ray's, and paths may be relative to the caller's
        self.jobs = jobs

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Numbers -> the same, and why a job was refused (Ray keeps the words of an error, not its kind)."""
        return {"number": batch["number"], "refused": [self._process(int(number)) for number in batch["number"]]}

    def _process(self, number: int) -> str:
        if self.jobs.is_finished(number):
            return ""
        if self._count_try(number) > MAX_TRIES:
            return (
                f"Workers died {MAX_TRIES} times at {self.jobs.describe(number)}; give more memory, or leave out what kills "
                "them, and run again: what is done is kept."
            )
        try:
            self.jobs.process(number)
        except UndersongError as error:
            return str(error)
        return ""

    def _count_try(self, number: int) -> int:
        """Counts this try.  Ray starts a dead worker's job again for ever, and an item may kill every worker."""
        with self.jobs.tries_file(number).open("ab") as file:
            file.write(b".")
            return file.tell()
