"""docs/how-to/measure.md: its commands run, and its tables have what there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from pages import commands, page, run

from undersong.settings.judge_names import JUDGE_KINDS, UTILITY_KINDS
from undersong.settings.presets import PRESETS

PAGE = page("measure")
COMMANDS = commands(PAGE)


def table(head: str) -> str:
    return PAGE.split(f"| {head} |", 1)[1].split("\n\n", 1)[0]


def test_the_tables_have_every_judge_and_preset() -> None:
    told = {name.partition(":")[0].partition("[")[0] for name in re.findall(r"`([^`]+)`", table("judge"))}
    assert told >= set(JUDGE_KINDS) - set(UTILITY_KINDS)
    useful = PAGE.split("## Usefulness")[1].split("| judge |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z0-9]+)`", useful, re.M)) == set(UTILITY_KINDS)
    assert set(re.search(r"--preset ([a-z0-9.|-]+)", PAGE).group(1).split("|")) == set(PRESETS)


def test_the_time_outs_named_are_the_clients() -> None:
    from undersong.evaluation.serving.client import ChatClient

    names = ("timeout", "retries", "max_consecutive_failures")
    said = {one.name: one.default for one in fields(ChatClient) if one.name in names}
    assert said == {"timeout": 120.0, "retries": 5, "max_consecutive_failures": 10}
    text = " ".join(PAGE.split())
    assert "six tries of 120 s each" in text
    assert "fails ten times in a row" in text


@pytest.mark.parametrize("verb", ["tune", "evaluate", "judge", "label", "compare", "plan"])
def test_every_flag_named_is_one(verb: str) -> None:
    from typer.testing import CliRunner

    from undersong.cli.app import app

    known = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output
    for line in [
        *COMMANDS,
        *re.findall(r"^(?:(?:accelerate|torchrun) .*)?undersong .*|(?<=`)undersong [^`]*", PAGE, re.M),
    ]:
        if f"undersong {verb} " in line:
            assert all(flag in known for flag in re.findall(r"(?<= )--[a-z-]+", line.split(f"undersong {verb}")[1]))


@pytest.mark.slow
def test_the_commands_run_as_they_stand(tmp_path: Path) -> None:
    assert len(COMMANDS) >= 4
    out = run(COMMANDS, tmp_path)
    assert "| after | 8.3% |" in out
    assert "-3.5 to +22.6" in out
