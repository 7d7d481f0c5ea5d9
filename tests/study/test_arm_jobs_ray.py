"""A study's arms spread over Ray's workers: the run finds what it would have made, and deaths and refusals are told."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_study import tiny_study
from typer.testing import CliRunner

from undersong.cli.app import app
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
from undersong.scale.ray_cluster import MAX_TRIES, RayActor
from undersong.stages.engine import Engine
from undersong.study.arm_jobs import ATTEMPTS_PREFIX, ArmJob, ArmJobs, run_arms_on_ray
from undersong.study.load import parse_study
from undersong.study.planning.plan import plan_study
from undersong.study.run import run_audit
from undersong.study.schema import Study
from undersong.types import UndersongError

TINY = tiny_study({"kinds": ["closest"]}, seeds=[0], draws=[0])
ARMS = ("base", "semantic/closest/0.25/text")


@pytest.fixture
def study() -> Study:
    return parse_study(TINY, "tiny")


def counted(todo: list[ArmJob]) -> ArmJobs:
    """Jobs with the folder that counts their tries."""
    jobs = ArmJobs(todo, DEFAULT_LOAD_OPTIONS)
    jobs.tries_file(0).parent.mkdir(parents=True)
    return jobs


def missing(study: Study, store: Path) -> set[str]:
    return {row.stage for row in plan_study(study, store).rows if row.total > row.done}


def test_a_worker_makes_what_the_run_finds(tmp_path: Path, study: Study) -> None:
    store = tmp_path / "store"
    jobs = pickle.loads(pickle.dumps(counted([ArmJob(study, arm, store) for arm in ARMS])))
    worker = RayActor(jobs, os.getcwd())
    assert worker({"number": np.array([1, 0])})["refused"] == ["", ""]
    assert len(jobs.contexts) == 1  # one model in memory for both
    assert missing(study, store) == {"verdicts"}
    assert run_audit(study, tmp_path / "out", store).result_hash == run_audit(study, tmp_path / "plain").result_hash


def test_an_arm_at_which_workers_die_is_given_up_by_name(tmp_path: Path, study: Study) -> None:
    jobs = counted([ArmJob(study, ARMS[1], tmp_path)])
    worker = RayActor(jobs, os.getcwd())
    jobs.tries_file(0).write_bytes(b"." * MAX_TRIES)
    (refused,) = worker({"number": np.array([0])})["refused"]
    assert refused.startswith(f"Workers died 3 times at arm tiny: {ARMS[1]}; ")


def test_two_runs_on_one_store_count_apart(tmp_path: Path, study: Study) -> None:
    """Deaths of one are not the other's, and the one that ends first takes nothing away."""
    one, other = (counted([ArmJob(study, ARMS[1], tmp_path)]) for _ in range(2))
    assert one.tries_file(0).parent != other.tries_file(0).parent
    assert pickle.loads(pickle.dumps(one)).tries_file(0) == one.tries_file(0)  # all workers of one run count together


def test_what_a_study_is_refused_for_is_said_in_its_own_words(tmp_path: Path) -> None:
    study = parse_study({**TINY, "pool": str(tmp_path / "none.jsonl")}, "tiny")
    worker = RayActor(counted([ArmJob(study, ARMS[1], tmp_path)]), os.getcwd())
    (refused,) = worker({"number": np.array([0])})["refused"]
    with pytest.raises(UndersongError) as alone:
        run_audit(study, tmp_path / "out")
    assert refused == str(alone.value)


def test_the_verb_refuses_what_cannot_be_meant(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    for words, why in (
        (["--engine", "slurm"], "no engine 'slurm'"),
        (["--ray-workers", "2"], "need --engine ray"),
        (["--engine", "ray", "--arm", "base"], "leave one of them out"),
    ):
        told = CliRunner().invoke(app, ["run", str(file), "--out", str(tmp_path / "out"), *words])
        assert isinstance(told.exception, UndersongError)
        assert why in str(told.exception)
    assert not (tmp_path / "out").exists()


def test_on_ray_the_results_are_those_of_one_process(tmp_path: Path, study: Study) -> None:
    pytest.importorskip("ray")
    said: list[str] = []
    store = tmp_path / "out" / "store"
    run_arms_on_ray([(study, tmp_path / "out", store)], DEFAULT_LOAD_OPTIONS, Engine("ray", workers=2), said.append)
    assert sorted(line.split(" is done")[0] for line in said) == [f"tiny: {arm}" for arm in ARMS]
    assert said[-1].endswith("(2 of 2 arms)")
    assert missing(study, store) == {"verdicts"}
    assert not list(store.glob(f"{ATTEMPTS_PREFIX}*"))
    assert run_audit(study, tmp_path / "out").result_hash == run_audit(study, tmp_path / "plain").result_hash
