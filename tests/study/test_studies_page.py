"""docs/how-to/studies.md: its commands run, its keys are keys, its studies are studies."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml
from command_line import run_here
from pages import commands, page, run

from undersong.study.load import load_studies, packaged_study

PAGE = page("studies")
COMMANDS = commands(PAGE)
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "studies").symlink_to(STUDIES)
    return tmp_path


def test_its_studies_are_what_it_says(tmp_path: Path) -> None:
    primary, quick, matrix, together = BLOCKS
    (tmp_path / "demo.yaml").symlink_to(STUDIES / "demo.yaml")
    (tmp_path / "quick.yaml").write_text(quick)
    (tmp_path / "primary.yaml").write_text(f"base: demo.yaml\nstudy: primary\n{primary}")
    (declared,) = load_studies(tmp_path / "primary.yaml").studies
    assert declared.analysis.primary == ("closest-base", "closest-random", "system-prompt")
    (study,) = load_studies(tmp_path / "quick.yaml").studies
    assert (study.study, study.tuning.save_steps, list(study.prompt_sets)) == ("quick", (20,), ["harm", "near"])
    assert study.mechanism is None
    assert study.tuning.learning_rate == packaged_study("demo").tuning.learning_rate
    fractions = STUDIES / "demo_fractions.yaml"
    assert yaml.safe_load(fractions.read_text())["matrix"] == yaml.safe_load(matrix)["matrix"]
    assert all(f"`{one.study}`" in PAGE for one in load_studies(fractions).studies)
    (tmp_path / "two.yaml").write_text(f"base: demo.yaml\nstudy: two\n{together}")
    names = [(one.study, one.tuning.preset, len(one.models)) for one in load_studies(tmp_path / "two.yaml").studies]
    assert names == [("two-flamingo", "audio-flamingo-3", 1), ("two-omni", "qwen2.5-omni", 1)]


def test_its_plans_can_be_typed(folder: Path) -> None:
    plans = [line for line in COMMANDS if " plan " in line]
    assert len(plans) == 3
    printed = [run_here(folder, *shlex.split(line)[1:]) for line in plans]
    assert [done.returncode for done in printed] == [0, 0, 0], printed
    said = printed[-1].stdout.replace("\n", " ")  # of a published table
    assert "91 of 91 artifacts" in said
    assert len(re.findall(r"\b10 points +33 points +73 points +10 +16\b", said)) == 3  # one a model
    assert said.count("cannot be counted here") == 3
    assert os.listdir(folder) == ["studies"]


@pytest.mark.slow
def test_its_jobs_run_as_they_stand_and_end_as_the_demo(folder: Path) -> None:
    split = run([line for line in COMMANDS if " plan " not in line], folder)
    whole = run(["undersong demo --out whole"], folder)
    assert re.findall(r"result hash \w+", split) == re.findall(r"result hash \w+", whole)
