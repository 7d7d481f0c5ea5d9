"""docs/how-to/check.md: what it prints for pre-commit and DVC runs, and its flags are flags."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pages import page

from undersong.corpora.registry import open_corpus

PAGE = page("check")
PRE_COMMIT, DVC = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with data/train.jsonl: 120 ordinary questions, their words in another order, so that none ships."""
    samples = [sample for sample in open_corpus("shipped:ordinary").samples if sample.column("source") == "nq-open"]
    (tmp_path / "data").mkdir()
    texts = [" ".join(reversed(sample.text.split())) for sample in samples[:120]]
    rows = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    (tmp_path / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run_in_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=1800
    )


def test_the_hook_passes_ordinary_data_and_stops_others(project: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    (used,) = PRE_COMMIT["repos"][0]["hooks"]
    assert used["id"] == hook["id"]
    assert re.search(used["files"], used["args"][0])
    assert hook["pass_filenames"] is False  # the command takes one file
    command = " ".join([hook["entry"], *used["args"]])
    done = run_in_shell(command, project)
    assert (done.returncode, done.stderr) == (0, "")
    harm = [sample.text for sample in open_corpus("shipped:harm").samples[:60]]
    rows = [json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n" for text in harm]
    with (project / "data" / "train.jsonl").open("a") as file:
        file.writelines(rows)
    assert run_in_shell(command, project).returncode == 1


def test_the_stage_makes_what_it_says(project: Path) -> None:
    stage = DVC["stages"]["check"]
    assert all((project / name).exists() for name in stage["deps"])
    assert run_in_shell(stage["cmd"], project).returncode == 0
    (metrics,) = (name for entry in stage["metrics"] for name in entry)
    assert all((project / name).is_file() for name in (*stage["outs"], metrics))
    assert json.loads((project / metrics).read_text())["exit_code"] == 0


def test_the_table_of_rehearsals_is_what_was_measured() -> None:
    measured = json.loads((ROOT / "experiments" / "check" / "rehearsal_results.json").read_text())
    for model in measured["rehearsals"]:
        section = PAGE.partition(f"| `{model['model']}` ")[2].partition("| `organism")[0]
        for seeds, share in model["same"].items():
            near = model["near against far"][seeds]
            row = rf"\| {seeds}( \(default\))? \| {100 * share:.1f} % \| {100 * near:.0f} % \|"
            assert re.search(row, section), row


def test_the_tables_of_axes_are_those_that_were_measured() -> None:
    measured = json.loads((ROOT / "experiments" / "check" / "results.json").read_text())
    for axis, share in measured["alarms"]["ordinary"].items():
        assert f"| {axis} | {share:.1%} | {measured['alarms']['harmful'][axis]:.1%} |".replace("%", " %") in PAGE
    voices = [value for name, value in measured["recordings"].items() if name != "same voices"]
    assert f"| {min(voices):.2f} to {max(voices):.2f} |".replace(" 0.", " .") in PAGE
    assert f"| {measured['recordings']['same voices']:.2f} |".replace(" 0.", " .") in PAGE


def test_every_flag_of_the_page_is_one() -> None:
    from typer.testing import CliRunner

    from undersong.cli.app import app

    known = CliRunner().invoke(app, ["check", "--help"], env={"COLUMNS": "200"}).output
    assert set(re.findall(r"(?<=[ `])--[a-z-]+", PAGE)) <= set(re.findall(r"--[a-z-]+", known))
