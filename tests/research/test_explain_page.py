"""docs/how-to/explain-and-defend.md: its commands run, its defenses are a study's, its flags are flags."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pages import commands, page, run

from undersong.settings.presets import DEFENSE_SYSTEM_PROMPTS
from undersong.study.defenses import DefenseSettings

PAGE = page("explain-and-defend")
COMMANDS = commands(PAGE)


def test_the_defenses_of_the_page_are_defenses() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    told = yaml.safe_load(block)["defenses"]
    changes = {name for settings in told.values() for name in DefenseSettings.model_validate(settings).changes}
    assert changes == set(DefenseSettings.model_fields)
    table = PAGE.split("| defense | what is done |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.M)) == set(DefenseSettings.model_fields)
    assert {"published", "published-script"} <= set(DEFENSE_SYSTEM_PROMPTS)
    assert sum(name.startswith("paraphrase") for name in DEFENSE_SYSTEM_PROMPTS) == 3


def test_every_flag_named_is_one() -> None:
    from typer.testing import CliRunner

    from undersong.cli.app import app

    known = CliRunner().invoke(app, ["probe", "--help"], env={"COLUMNS": "200"}).output
    prose = PAGE.split("## Defend")[0]
    flags = {flag for line in COMMANDS if " probe " in line for flag in re.findall(r"(?<= )--[a-z-]+", line)}
    assert flags | set(re.findall(r"`(--[a-z-]+)`", prose)) <= set(re.findall(r"--[a-z-]+", known))


@pytest.mark.slow
def test_the_commands_run_as_they_stand(tmp_path: Path) -> None:
    out = run(COMMANDS, tmp_path)
    assert "JSR 0.0% before and 21.3% after, of 108 held-out prompts" in out
    assert "Late probes tell 97.9% of held-out prompts rightly before and 100.0% after" in out
    assert "first half 73%" in out
