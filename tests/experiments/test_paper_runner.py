"""Studies one after another: what is done is not done again, its cost is kept, and what is shared is told once."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from organism_results import results_of

from experiments.paper import runner
from experiments.paper.designs import REDUCED
from experiments.paper.runner import costs_of, plan_all, run_all
from undersong import __version__
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
from undersong.study.planning.planning_store import plan_artifacts
from undersong.study.schema import Study

NAMES = [f"organism-pretrained-{name}" for name in ("af3", "qwen", "kimi")]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The studies that were run, by a stand-in that writes results."""
    names: list[str] = []

    def run(study: Study, out: Path, store: Path) -> SimpleNamespace:
        names.append(study.study)
        results = results_of(study, lambda organism, asked: 0)
        results["provenance"]["undersong"] = __version__
        out.mkdir(parents=True)
        (out / "results.json").write_text(json.dumps(results))
        return SimpleNamespace(cpu_seconds=2.0, result_hash="abc")

    monkeypatch.setattr(runner, "run_audit", run)
    return names


def test_what_is_done_is_not_done_again(ran: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    run_all(REDUCED, tmp_path / "reduced", tmp_path / "store", ["pretrained"], said.append)
    assert ran == NAMES
    assert sum("nothing is trained" in line for line in said) == 3  # what each can show
    shutil.rmtree(tmp_path / "reduced" / NAMES[1])
    run_all(REDUCED, tmp_path / "reduced", tmp_path / "store", ["pretrained"], said.append)
    assert ran == [*NAMES, NAMES[1]]
    assert said.count("  its results are there") == 2
    assert costs_of(tmp_path / "reduced") == {NAMES[0]: [2.0], NAMES[1]: [2.0, 2.0], NAMES[2]: [2.0]}


def test_a_plan_counts_what_studies_share_once(tmp_path: Path) -> None:
    said: list[str] = []
    plan_all(REDUCED, tmp_path / "store", ["pretrained", "bbh"], said.append)
    counts = [int(found[1]) for line in said if (found := re.search(r"of (\d+) artifacts", line))]
    *each, whole = counts
    assert len(each) == 6
    studies = [study for file in ("pretrained", "bbh") for study in REDUCED.studies(file)]
    needed = [set(plan_artifacts(study, tmp_path / "store", DEFAULT_LOAD_OPTIONS).planned) for study in studies]
    assert each == [len(one) for one in needed]
    assert whole == len(set.union(*needed)) < sum(each)
    assert not (tmp_path / "store").exists()
