"""A study split over jobs: an arm alone, what stands where, and that the whole is as if nothing had been split."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from command_line import run_apart, run_here
from tiny_study import tiny_study

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
from undersong.study.arm_jobs import arm_names
from undersong.study.load import load_studies, packaged_study, parse_study
from undersong.study.planning.plan import StudyStatus, plan_study, study_status
from undersong.study.planning.planning_store import plan_artifacts
from undersong.study.run import run_arm, run_audit

Undersong = Callable[..., "subprocess.CompletedProcess[str]"]
TINY = tiny_study(
    {"kinds": ["closest", "random"], "rules": {"odd": {"axis": "semantic", "keep": "closest:0.1"}}},
    seeds=[0, 1],
    draws=[0, 1],
)


@pytest.fixture(params=[run_here, pytest.param(run_apart, marks=pytest.mark.slow)], ids=["here", "apart"])
def undersong(request: pytest.FixtureRequest) -> Undersong:
    """The command line, in this process and slowly in one for each command, as jobs are."""
    return request.param


def made(store: Path, stage: str) -> int:
    return sum(not path.name.startswith(".") for path in (store / stage).iterdir()) if (store / stage).is_dir() else 0


def done(status: StudyStatus, stage: str) -> tuple[int, int]:
    return next((row.done, row.total) for row in status.rows if row.stage == stage)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The result hash of an undisturbed run."""
    return run_audit(parse_study(TINY, "tiny"), tmp_path_factory.mktemp("whole")).result_hash


def test_arms_are_called_before_anything_is_selected_as_they_are_after() -> None:
    assert arm_names(parse_study(TINY, "tiny")) == [
        "base", "semantic/closest/0.25/text", "semantic/random/0.25/text", "semantic/odd/text"
    ]  # fmt: skip
    assert len(arm_names(packaged_study("demo"))) == 7


def test_jobs_of_one_arm_each_make_what_the_run_finds(undersong: Undersong, tmp_path: Path, whole: str) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY, sort_keys=False))
    study, store = parse_study(TINY, "tiny"), tmp_path / "out" / "tiny" / "store"
    closest = undersong(tmp_path, "run", "tiny.yaml", "--arm", "semantic/closest/0.25/text")
    assert closest.returncode == 0, closest.stderr
    assert "semantic/closest/0.25/text is in" in closest.stdout
    assert "no results are written" in closest.stdout
    assert [path.name for path in store.parent.iterdir()] == ["store"]
    assert (made(store, "adapter"), made(store, "replies"), made(store, "verdicts")) == (2, 2, 0)
    assert done(study_status(study, store), "replies") == (2, 7)
    # a job may be of one seed too: the store knows no studies
    one_seed = ("--override", "tuning.seeds=[1]", "--override", "tuning.draws=[1]")
    assert undersong(tmp_path, "run", "tiny.yaml", "--arm", "semantic/random/0.25/text", *one_seed).returncode == 0
    assert (made(store, "adapter"), made(store, "replies")) == (3, 3)
    assert undersong(tmp_path, "run", "tiny.yaml", "--arm", "base").returncode == 0
    assert (made(store, "adapter"), made(store, "replies")) == (3, 4)
    for name in ("semantic/random/0.25/text", "semantic/odd/text"):
        assert run_arm(study, name, store.parent, store) == 2
    todo = {row.stage: row.total - row.done for row in plan_study(study, store).rows}
    assert {stage for stage, count in todo.items() if count} == {"verdicts"}
    last = undersong(tmp_path, "run", "tiny.yaml")
    assert f"result hash {whole}" in last.stdout


def test_an_arm_that_is_none_is_one_sentence_and_makes_nothing(undersong: Undersong, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    slip = undersong(tmp_path, "run", "tiny.yaml", "--arm", "semantic/closest/0.25/txt")
    assert (slip.returncode, slip.stdout) == (2, "")
    assert slip.stderr == (
        "undersong: Study tiny has no arm 'semantic/closest/0.25/txt'; did you mean 'semantic/closest/0.25/text'?\n"
    )
    assert "choose one of base, semantic/closest" in undersong(tmp_path, "run", "tiny.yaml", "--arm", "?").stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    other = undersong(tmp_path, "run", "tiny.yaml", "--arm", "base", "--out", "full")
    assert other.returncode == 2
    assert "holds letter.txt and no results" in other.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "letter.txt", "tiny.yaml"]


def test_studies_of_a_matrix_have_a_folder_each_and_one_store(undersong: Undersong, tmp_path: Path) -> None:
    one_arm = {"kinds": ["closest"], "rules": None}
    many = {"base": "tiny.yaml", "study": "many", "selection": one_arm, "matrix": {"tuning.batch_size": [2, 4]}}
    for name, data in (("tiny", TINY), ("many", many)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    out = tmp_path / "out" / "many"
    seeds = ("--override", "tuning.seeds=[0]", "--override", "tuning.draws=[0]")
    both = undersong(tmp_path, "run", "many.yaml", *seeds)
    assert both.returncode == 0, both.stderr
    assert sorted(path.name for path in out.iterdir()) == ["many-2", "many-4", "store"]
    assert made(out / "store", "adapter") == 2
    results = [json.loads((out / name / "results.json").read_text()) for name in ("many-2", "many-4")]
    assert [one["study"]["name"] for one in results] == ["many-2", "many-4"]
    resolved = load_studies(tmp_path / "many.yaml", [seeds[1], seeds[3]]).studies
    assert [one["study"]["config"] for one in results] == [one.model_dump(mode="json") for one in resolved]
    again = undersong(tmp_path, "run", "many.yaml", *seeds, "--only", "many-4")
    hashes = [line for line in both.stdout.splitlines() if line.startswith("result hash")]
    assert [line for line in again.stdout.splitlines() if line.startswith("result hash")] == hashes[1:]
    assert [line for line in both.stdout.splitlines() if line.startswith("study ")] == ["study many-2", "study many-4"]
    told = undersong(tmp_path, "status", "many.yaml", *seeds)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("`run` would only write the results again") == 2
    assert told.stdout.count("\nresults in out/many/many-") == 2


def test_status_says_what_is_being_made_and_what_was_left(tmp_path: Path) -> None:
    study = parse_study(TINY, "tiny")
    before = study_status(study, tmp_path / "store")
    assert (before.in_progress, before.interrupted) == ((), ())
    assert not list(tmp_path.iterdir())
    ledger = plan_artifacts(study, tmp_path / "store", DEFAULT_LOAD_OPTIONS)
    first, second = (
        next(one for one in ledger.planned.values() if one.stage == stage and "random" in one.progress_line)
        for stage in ("adapter", "replies")
    )
    for one in (first, second):
        one.expected.partial.mkdir(parents=True)
        one.expected.journal.touch()
    with first.expected.journal.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = study_status(study, tmp_path / "store")
    assert found.in_progress == ("adapter of organism:af3: semantic/random/0.25/text seed 0",)
    assert found.interrupted == ("replies of organism:af3: semantic/random/0.25/text seed 0",)
    assert found.summary.startswith("33 of 33 artifacts are to be made")


def test_the_verb_loads_no_model_and_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    code = (
        "import sys; from undersong.cli import main\n"
        "sys.argv = ['undersong', 'status', 'tiny.yaml']\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print('loaded', [name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=os.environ, timeout=1800
    )
    assert told.returncode == 0, told.stderr
    assert "loaded []" in told.stdout
    assert "  adapter       0 of 6\n" in told.stdout
    assert "no results yet in out/tiny" in told.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]
