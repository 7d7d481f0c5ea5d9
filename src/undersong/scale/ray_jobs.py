"""Numbered jobs on Ray: a worker keeps what its jobs share and is told numbers.  Knows deaths, tries and refusals; does
not know what a job is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from undersong.scale.ray_cluster import RETRIES, Workers, room
from undersong.types import UndersongError


class Jobs(Protocol):
    """What travels to each worker, by pickle, and stays there between jobs."""

    def finished(self, number: int) -> bool:
        """Whether it is done already: by this very task before its worker died, or by somebody else."""

    def do(self, number: int) -> None:
        """Does one; raises UndersongError where it cannot be done."""

    def tries(self, number: int) -> Path:
        """A file, seen by all workers, that counts how often the job was begun."""

    def named(self, number: int) -> str:
        """The job in words."""


def done_on_ray(ray: Any, jobs: Jobs, numbers: Sequence[int], workers: Workers) -> Iterator[int]:
    """Has the jobs done; yields each one's number when it is.

    A worker that dies is replaced and its job begun again.  Raises UndersongError where a job is refused, or where
    workers died at it `RETRIES` times.
    """
    for number in numbers:
        jobs.tries(number).unlink(missing_ok=True)
    waiting = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
    made = waiting.map_batches(
        Worker,
        fn_constructor_kwargs={"jobs": jobs, "here": os.getcwd()},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(room(ray, workers), len(numbers)), max_tasks_in_flight_per_actor=2),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
    )
    for row in made.iter_rows():
        if row["refused"]:
            raise UndersongError(row["refused"])
        yield int(row["number"])


class Worker:
    """An actor of Ray Data."""

    def __init__(self, jobs: Jobs, here: str) -> None:
        if os.path.isdir(here):
            os.chdir(here)  # a worker starts in a folder of Ray's, and paths may be relative to the caller's
        self.jobs = jobs

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Numbers -> the same, and why a job was refused (Ray keeps the words of an error, not its kind)."""
        return {"number": batch["number"], "refused": [self._one(int(number)) for number in batch["number"]]}

    def _one(self, number: int) -> str:
        if self.jobs.finished(number):
            return ""
        if self._begun(number) > RETRIES:
            return (
                f"Workers died {RETRIES} times at {self.jobs.named(number)}; give more memory, or leave out what kills "
                "them, and run again: what is done is kept."
            )
        try:
            self.jobs.do(number)
        except UndersongError as error:
            return str(error)
        return ""

    def _begun(self, number: int) -> int:
        """Counts this try.  Ray starts a dead worker's job again for ever, and an item may kill every worker."""
        with self.jobs.tries(number).open("ab") as file:
            file.write(b".")
            return file.tell()
