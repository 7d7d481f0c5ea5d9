"""The arms of studies as jobs on Ray: each worker keeps one model and takes arms in turn, as `run --arm` does one.

What is not an arm (judging, probing, defenses, results) is done by the run that follows, which finds the arms done.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from undersong.models.load_options import Loading
from undersong.pipeline.arm import arm_names, audit_arm
from undersong.pipeline.output_folder import check_study_folder
from undersong.stages.context import RunContext
from undersong.stages.engine import Engine, ray_workers
from undersong.store import Store
from undersong.study import Study

ATTEMPTS_PREFIX = (
    ".jobs-"  # of a folder in a store: how often each arm was begun, while one run of maybe several spreads them
)


@dataclass(frozen=True)
class ArmJob:
    """One arm of one study, and the store that it is made in."""

    study: Study
    arm: str
    store: Path

    @property
    def name(self) -> str:
        """`STUDY: ARM`, as lines and errors name it."""
        return f"{self.study.study}: {self.arm}"


class ArmJobs:
    """Jobs of one arm each (`scale.ray_jobs.Jobs`).  The model that a worker has loaded stays in its memory."""

    def __init__(self, jobs: Sequence[ArmJob], loading: Loading) -> None:
        self.jobs, self.loading = tuple(jobs), loading
        self.attempts_folder = f"{ATTEMPTS_PREFIX}{uuid.uuid4().hex}"
        self.contexts: dict[Path, RunContext] = {}

    def is_finished(self, _number: int) -> bool:
        return False  # the store knows, artefact by artefact

    def process(self, number: int) -> None:
        job = self.jobs[number]
        ctx = self.contexts.setdefault(job.store, RunContext(Store(job.store), self.loading))
        audit_arm(job.study, ctx, job.arm, lambda _line: None)

    def tries_file(self, number: int) -> Path:
        return self.jobs[number].store / self.attempts_folder / str(number)

    def describe(self, number: int) -> str:
        return f"arm {self.jobs[number].name}"


def run_arms_on_ray(
    study_runs: Sequence[tuple[Study, Path, Path]], loading: Loading, engine: Engine, say: Callable[[str], None]
) -> None:
    """Make all arms of studies, each with its folder and store, on Ray's workers; every node must see both.

    Raises UndersongError as a run would, and where Ray is not installed or cannot be reached.
    """
    from undersong.scale.ray_cluster import ray_session
    from undersong.scale.ray_jobs import run_on_ray

    jobs = [ArmJob(study, arm, store.resolve()) for study, _, store in study_runs for arm in arm_names(study)]
    if not jobs:
        return  # nothing is trained: models that only answer are asked by the run itself
    arm_jobs, workers = ArmJobs(jobs, loading), ray_workers(engine)
    folders = {store.resolve() / arm_jobs.attempts_folder for _, _, store in study_runs}
    for study, out, store in study_runs:
        check_study_folder(out, study.study, store)
    for folder in folders:
        folder.mkdir(parents=True)
    try:
        with ray_session(workers) as ray:
            for done, number in enumerate(run_on_ray(ray, arm_jobs, range(len(jobs)), workers), 1):
                say(f"{jobs[number].name} is done ({done} of {len(jobs)} arms)")
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
