"""docs/how-to/ci.md: its files parse, its flags are real, its numbers and its commands are as it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from math import ceil, log
from pathlib import Path

import pytest
import yaml
from pages import commands, page, run
from typer.testing import CliRunner

from undersong.cli.app import app

PAGE = page("ci")
_action, WORKFLOW, HOOKS = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S))


def test_every_flag_named_is_one() -> None:
    steps = [step["run"] for step in WORKFLOW["jobs"]["gate"]["steps"] if "undersong " in step.get("run", "")]
    steps += [hook["entry"] for hook in HOOKS["repos"][0]["hooks"]]
    lines = [line for text in (*steps, *commands(PAGE)) for line in text.splitlines() if "undersong " in line]
    assert len(lines) >= 7
    for line in lines:
        verb = line.split("undersong ")[1].split()[0]
        known = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output
        assert all(flag in known for flag in re.findall(r"(?<= )--[a-z-]+", line)), line


def test_the_numbers_of_prompts() -> None:
    sentence = r"(\d+) clusters rule out\na rise of 2 points, (\d+) rule out 5 points, and (\d+) rule out 10 points"
    told = [int(count) for count in re.search(sentence, PAGE).groups()]
    assert told == [ceil(log(0.05) / log(1 - limit)) for limit in (0.02, 0.05, 0.1)]


def test_limits_on_rates_need_results_as_the_page_says(tmp_path: Path) -> None:
    assert "limit the rates themselves. They need RESULTS" in PAGE
    assert "| `max-jsr`, `max-over-refusal` | limits on the rates themselves; they need `results` |" in PAGE
    for rises in ([], ["--max-jsr-rise", "0.1"]):
        limits = ["--max-jsr", "0.1", *rises]
        done = CliRunner().invoke(app, ["gate", "--before", "b.parquet", "--after", "a.parquet", *limits])
        assert "need RESULTS; for two files, limit the rise" in str(done.exception)


STAND_IN = """#!/bin/sh
printf '%s\\n' "$*" >> "$TYPED"
"""


def workflow_steps(tmp_path: Path, path: Path) -> list[int]:
    """Exit codes of the steps, but for those of GitHub and the installation, run as GitHub runs them."""
    steps = [step["run"] for step in WORKFLOW["jobs"]["gate"]["steps"] if "undersong " in step.get("run", "")]
    environment = os.environ | WORKFLOW["env"] | {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    environment |= {"PATH": f"{path}:{environment['PATH']}", "TYPED": str(tmp_path / "typed")}
    return [subprocess.run(["bash", "-e", "-c", step], cwd=tmp_path, env=environment).returncode for step in steps]


def test_the_workflow_is_shell_and_every_line_parses(tmp_path: Path) -> None:
    """With a program in place of undersong that writes down what it was called with."""
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "undersong"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    assert workflow_steps(tmp_path, stand_in.parent) == [0, 0]
    before, after, gate = (tmp_path / "typed").read_text().splitlines()
    assert before == "evaluate organism:test-harm --model organism:qwen --modality text --out before"
    assert after.endswith("--adapter adapter --out after")
    assert "--max-jsr-rise 0.02" in gate
    assert "$" not in before + after + gate


@pytest.mark.slow
def test_the_workflow_runs_as_printed(tmp_path: Path) -> None:
    """D2 of the trial."""
    from random_adapter import save_random_adapter

    from undersong.models.load import load_model

    model = load_model(WORKFLOW["env"]["MODEL"])
    save_random_adapter(model.model, ["q_proj"], tmp_path / WORKFLOW["env"]["ADAPTER"])
    codes = workflow_steps(tmp_path, Path(sys.executable).parent)
    assert codes[0] == 0
    assert codes[1] in (1, 3)
    assert "undersong" in (tmp_path / "summary.md").read_text()


@pytest.mark.slow
def test_the_commands_run_as_they_stand(tmp_path: Path) -> None:
    lines = commands(PAGE)
    run([line for line in lines if " gate " not in line], tmp_path)
    for line in (line for line in lines if " gate " in line):
        words = [str(Path(sys.executable).parent / "undersong"), *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 3, done.stderr
    assert {"gate.xml", "gate.md", "gate.html", "gate.json"} <= {file.name for file in tmp_path.iterdir()}
