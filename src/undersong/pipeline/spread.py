"""The arms of studies as jobs on Ray: each worker keeps one model and takes arms in turn, as `run --arm` does one.

What is not an arm (judging, probing, defenses, results) is done by the run that follows, which finds the arms done.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from undersong.models.loading import Loading
from undersong.pipeline.arm import arm_names, audit_arm
from undersong.pipeline.engine import Engine, workers_of
from undersong.pipeline.folders import for_study
from undersong.pipeline.workshop import Workshop
from undersong.store import Store
from undersong.study import Study

COUNTS = ".jobs-"  # of a folder in a store: how often each arm was begun, while one run of maybe several spreads them


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


class Arms:
    """Jobs of one arm each (`scale.ray_jobs.Jobs`).  The model that a worker has loaded stays in its memory."""

    def __init__(self, todo: Sequence[ArmJob], loading: Loading) -> None:
        self.todo, self.loading = tuple(todo), loading
        self.counts = f"{COUNTS}{uuid.uuid4().hex}"
        self.shops: dict[Path, Workshop] = {}

    def finished(self, _number: int) -> bool:
        return False  # the store knows, artefact by artefact

    def do(self, number: int) -> None:
        job = self.todo[number]
        shop = self.shops.setdefault(job.store, Workshop(Store(job.store), self.loading))
        audit_arm(job.study, shop, job.arm, lambda _line: None)

    def tries(self, number: int) -> Path:
        return self.todo[number].store / self.counts / str(number)

    def named(self, number: int) -> str:
        return f"arm {self.todo[number].name}"


def spread_arms(
    placed: Sequence[tuple[Study, Path, Path]], loading: Loading, engine: Engine, say: Callable[[str], None]
) -> None:
    """Make all arms of studies, each with its folder and store, on Ray's workers; every node must see both.

    Raises UndersongError as a run would, and where Ray is not installed or cannot be reached.
    """
    from undersong.scale.ray_cluster import cluster
    from undersong.scale.ray_jobs import done_on_ray

    todo = [ArmJob(study, arm, store.resolve()) for study, _, store in placed for arm in arm_names(study)]
    if not todo:
        return  # nothing is trained: models that only answer are asked by the run itself
    arms, workers = Arms(todo, loading), workers_of(engine)
    folders = {store.resolve() / arms.counts for _, _, store in placed}
    for study, out, store in placed:
        for_study(out, study.study, store)
    for folder in folders:
        folder.mkdir(parents=True)
    try:
        with cluster(workers) as ray:
            for done, number in enumerate(done_on_ray(ray, arms, range(len(todo)), workers), 1):
                say(f"{todo[number].name} is done ({done} of {len(todo)} arms)")
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
