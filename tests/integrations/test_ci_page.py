"""docs/how-to/ci.md: its files parse, its flags are real, its numbers and its commands are as it says."""

from __future__ import annotations

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
WORKFLOW, HOOKS, _action = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S))


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
    told = [int(n) for n in re.search(r"takes (\d+) clusters .*?5 points (\d+), 10 points (\d+)", PAGE).groups()]
    assert told == [ceil(log(0.05) / log(1 - limit)) for limit in (0.02, 0.05, 0.1)]


@pytest.mark.slow
def test_the_commands_run_as_they_stand(tmp_path: Path) -> None:
    lines = commands(PAGE)
    run([line for line in lines if " gate " not in line], tmp_path)
    for line in (line for line in lines if " gate " in line):
        words = [str(Path(sys.executable).parent / "undersong"), *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 3, done.stderr
    assert {"gate.xml", "gate.md", "gate.html", "gate.json"} <= {file.name for file in tmp_path.iterdir()}
