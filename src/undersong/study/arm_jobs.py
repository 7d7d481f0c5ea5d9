"""Training and replies of single arms, for job arrays and for Ray workers.

Uses the stages of `audit`, so that a later run of the whole study finds them done.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from undersong.models.load_options import LoadOptions
from undersong.stages.black_box_models import is_black_box, trainable_models
from undersong.stages.context import RunContext
from undersong.stages.engine import Engine, ray_workers
from undersong.store.atomic import remove_path
from undersong.store.store import Store
from undersong.study.arm_selection import arm_rules, load_selection
from undersong.study.audit import (
    compute_proximities,
    encode_corpora,
    evaluate_base,
    load_checked_corpora,
    study_arms,
    train_and_evaluate_arms,
)
from undersong.study.planning.dependencies import check_dependencies
from undersong.study.results.records import ModelRecord
from undersong.study.schema import Study
from undersong.study.study_folder import check_study_folder
from undersong.suggestions import did_you_mean
from undersong.types import UndersongError

BASE_ARM = "base"  # the arm without training


def arm_names(study: Study) -> list[str]:
    """Names of a study's arms, before anything is selected; empty if all models are black boxes."""
    tuned = [f"{rule.label}/{modality}" for rule in arm_rules(study) for modality in study.tuning.modalities]
    return [BASE_ARM, *tuned] if trainable_models(study.models) else []


def check_arm_name(study: Study, name: str) -> None:
    """Check that a study has an arm of this name.

    Raises:
        UndersongError: It has none.
    """
    names = arm_names(study)
    if name not in names:
        alternatives = f"; choose one of {', '.join(names)}." if names else ", because its models are black boxes."
        raise UndersongError(f"Study {study.study} has no arm {name!r}{did_you_mean(name, names) or alternatives}")


def audit_arm(study: Study, ctx: RunContext, name: str) -> int:
    """Train one arm at all its seeds on every base and generate its replies; return the number of sets of replies.

    The base arm is not trained. Models that can only be prompted are skipped.
    """
    check_dependencies(study, ctx)
    record, evaluation_count = load_checked_corpora(study, ctx), 0
    for base_seed, ref in enumerate(study.models):
        if is_black_box(ref):
            continue
        ctx.announce(f"{ref}: {name} alone")
        model = ModelRecord(ref, base_seed, ctx.features(ref))
        encode_corpora(ctx, record, model)
        if name == BASE_ARM:
            arm_replies = [evaluate_base(ctx, record, model)]
        else:
            compute_proximities(ctx, record, model)
            selections = partial(load_selection, ctx, record.pool)
            arms = [arm for arm in study_arms(record, model, selections) if arm.name == name]
            arm_replies = train_and_evaluate_arms(ctx, record, arms)
        evaluation_count += len(arm_replies)
    return evaluation_count


# Prefix of a folder in the store that counts how often each arm was started by one run
ATTEMPTS_PREFIX = ".jobs-"


@dataclass(frozen=True)
class ArmJob:
    """Job of one arm of a study, with the store that it is made in."""

    study: Study
    arm: str
    store: Path

    @property
    def name(self) -> str:
        """`STUDY: ARM`, for progress lines and errors."""
        return f"{self.study.study}: {self.arm}"


class ArmJobs:
    """Jobs of one arm each (`scale.ray_cluster`). The model that a worker has loaded stays in its memory."""

    def __init__(self, jobs: Sequence[ArmJob], loading: LoadOptions) -> None:
        self.jobs, self.loading = tuple(jobs), loading
        self.attempts_folder = f"{ATTEMPTS_PREFIX}{uuid.uuid4().hex}"
        self.contexts: dict[Path, RunContext] = {}

    def is_finished(self, _number: int) -> bool:
        return False  # the store knows, artifact by artifact

    def process(self, number: int) -> None:
        job = self.jobs[number]
        ctx = self.contexts.setdefault(job.store, RunContext(Store(job.store), self.loading))
        audit_arm(job.study, ctx, job.arm)

    def tries_file(self, number: int) -> Path:
        return self.jobs[number].store / self.attempts_folder / str(number)

    def describe(self, number: int) -> str:
        return f"arm {self.jobs[number].name}"


def run_arms_on_ray(
    study_runs: Sequence[tuple[Study, Path, Path]], loading: LoadOptions, engine: Engine, say: Callable[[str], None]
) -> None:
    """Make all arms of studies on Ray's workers; every node must see the folders and stores.

    Args:
        study_runs: Studies, each with its folder and store.
        loading: Loading options of the models.
        engine: Ray engine.
        say: Receives progress lines.

    Raises:
        UndersongError: A run would fail, or Ray is not installed or cannot be reached.
    """
    from undersong.scale.ray_cluster import ray_session, run_on_ray

    jobs = [ArmJob(study, arm, store.resolve()) for study, _, store in study_runs for arm in arm_names(study)]
    if not jobs:
        return  # nothing is trained: the run itself evaluates black-box models
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
            with suppress(OSError):  # it only counts attempts
                remove_path(folder)
