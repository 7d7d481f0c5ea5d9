"""docs/how-to/report.md: its study is one, its flags are real, what it says of limits holds, its commands run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import commands, page, run
from typer.testing import CliRunner

from undersong.cli.app import app
from undersong.pages.audio_players import MAX_CLIP_SECONDS, MAX_FILE_BYTES, MAX_TOTAL_BYTES
from undersong.research.report.paper_figures import FIGURES
from undersong.study.load import load_studies

PAGE = page("report")
STUDY = re.search(r"```yaml\n(.*?)```", PAGE, re.S)[1]


def test_its_study_is_one_and_its_flags_are_real(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    assert [one.study for one in load_studies(tmp_path / "small.yaml").studies] == ["small-af3", "small-qwen"]
    for line in commands(PAGE):
        known = CliRunner().invoke(app, [line.split()[1], "--help"], env={"COLUMNS": "200"}).output
        assert all(flag in known for flag in re.findall(r"(?<= )--[a-z-]+", line)), line


def test_its_limits_are_those_of_the_page() -> None:
    assert f"up to {MAX_FILE_BYTES >> 10} KiB" in PAGE
    assert f"up to {MAX_TOTAL_BYTES >> 20} MiB" in PAGE
    assert f"first {MAX_CLIP_SECONDS} seconds" in PAGE
    assert len(FIGURES) == PAGE.split("`--figures DIR` draws")[1].split(".")[0].count(";") + 1


@pytest.mark.slow
def test_the_commands_run_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    run(commands(PAGE), tmp_path)
    assert {"report.html", "report.md", "results.parquet"} <= {
        f.name for f in (tmp_path / "out/small/small-af3").iterdir()
    }
    assert re.search(r"studies compared</h1>", (tmp_path / "studies.html").read_text())
    assert len(list((tmp_path / "figures").iterdir())) >= 4
