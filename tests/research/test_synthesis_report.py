"""The page and the command that put several studies together."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from undersong.cli import main
from undersong.pages.svg import summary_strip

Json = dict[str, Any]


@pytest.fixture
def files(make_results: Callable[..., Json], tmp_path: Path) -> list[Path]:
    """Results of three studies, each of another base."""
    paths = []
    for i, effect in enumerate((1.0, 0.6, 0.3)):
        one = copy.deepcopy(make_results(effect=effect))
        one["study"] |= {"name": f"study {i}", "models": [f"base <{i}>"]}
        one["provenance"] = None
        for run in one["runs"]:
            run["model"] = f"base <{i}>"
        paths.append(tmp_path / f"{i}.json")
        paths[-1].write_text(json.dumps(one))
    return paths


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["undersong", "synthesize", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_the_command_writes_page_numbers_and_table(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert call(monkeypatch, *files, "--out", out, "--trained-on", "audio") == 0
    printed = capsys.readouterr().out
    assert "Mean over 3 bases: +" in printed
    assert "I²" in printed
    assert "prediction interval" in printed
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert numbers["schema_version"] == "undersong-synthesis/1"
    assert [one["modality"] for one in numbers["analyses"]] == ["audio", "text"]
    assert len(numbers["analyses"][0]["estimates"]) == 3
    page = out.read_text()
    assert page.count('class="diamond"') == 2
    assert "base &lt;0&gt;" in page
    assert "base <0>" not in page


def test_studies_that_cannot_be_compared_are_put_together_only_on_demand(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = json.loads(files[1].read_text())
    other["study"] |= {"judge": "keyword", "protocol": "published"}
    files[1].write_text(json.dumps(other))
    out = tmp_path / "page.html"
    assert call(monkeypatch, *files, "--out", out) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in lines[:2]] == [
        "protocol published, where study 0 has uniform",
        "judge keyword, where study 0 has exact",
    ]
    assert "1 of 3 studies are not comparable" in lines[-1]
    assert not out.exists()
    assert call(monkeypatch, *files, "--out", out, "--allow-differences", "--trained-on", "both") == 0
    assert "Not comparable: study 1: judge keyword" in capsys.readouterr().out
    assert "study 1 is not comparable with study 0:" in re.sub("<[^>]*>", "", out.read_text())


def test_nothing_but_an_earlier_page_is_overwritten(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.html"
    out.write_text("mine")
    assert call(monkeypatch, *files, "--out", out) == 2
    assert "is no report" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_the_diamond_spans_the_interval_and_the_line_the_prediction() -> None:
    picture = str(summary_strip(0.0, (-0.1, 0.1), (-0.3, 0.9), 0.5))
    assert 'points="40.000,5 50.000,0 60.000,5 50.000,10"' in picture
    assert 'x1="20.00%"' in picture
    assert 'x2="100.00%"' in picture  # cut at the end of the axis
    assert "diamond" not in str(summary_strip(0.2, (None, None), (None, None), 0.5))
