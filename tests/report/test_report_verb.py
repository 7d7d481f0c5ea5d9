"""`undersong report` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from undersong.cli.report import report
from undersong.types import UndersongError

Json = dict[str, Any]


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(report)
    return app


def call(app: typer.Typer, *arguments: str | Path) -> str:
    """What the verb prints; what it raises is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def file(results: Json, tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    return path


def test_the_report_lands_beside_the_results_or_where_told(app: typer.Typer, file: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "report.html") in call(app, file)
    call(app, file, "--out", tmp_path / "other.html")
    assert (tmp_path / "report.html").read_bytes() == (tmp_path / "other.html").read_bytes()
    assert "<h1" in (tmp_path / "other.html").read_text(encoding="utf-8")


def test_a_folder_gets_the_report_and_keeps_what_is_in_it(app: typer.Typer, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    call(app, file, "--out", folder)
    assert sorted(p.name for p in folder.iterdir()) == ["notes.txt", "report.html"]


@pytest.mark.parametrize("name", ["results.json", "notes.txt"])
def test_no_file_but_a_report_is_written_over(name: str, app: typer.Typer, file: Path, tmp_path: Path) -> None:
    target = tmp_path / name
    target.touch()
    before = target.read_bytes()
    with pytest.raises(UndersongError, match="is no report"):
        call(app, file, "--out", target)
    assert target.read_bytes() == before


def test_it_says_when_the_results_hold_no_replies(app: typer.Typer, file: Path, results: Json) -> None:
    assert "stay redacted" in call(app, file, "--show-replies")
    results["examples"][0]["reply"] = "a reply that is here"
    file.write_text(json.dumps(results), encoding="utf-8")
    assert "stay redacted" not in call(app, file, "--show-replies")
    assert "a reply that is here" in file.with_name("report.html").read_text(encoding="utf-8")


def test_it_says_that_players_need_the_audio(app: typer.Typer, file: Path, results: Json) -> None:
    assert "has no players; give --audio a folder" in call(app, file)
    results["screen"] = []
    file.write_text(json.dumps(results), encoding="utf-8")
    assert "Note:" not in call(app, file)  # it names no sample


def test_audio_is_found_by_sample_id(app: typer.Typer, file: Path, results: Json, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / f"{results['screen'][0]['closest'][0]['id']}.ogg").write_bytes(b"OggS")
    (folder / "someone-else.ogg").write_bytes(b"OggS")
    call(app, file, "--audio", folder)
    assert file.with_name("report.html").read_text(encoding="utf-8").count("<audio") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "There is no file"),
        (b"{not json", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "holds no JSON object"),
        (b'{"schema": "other"}', "schema 'other'"),
        (b'{"schema": "undersong-results/1", "runs": [{"arm": 1}]}', r"runs\.0"),
    ],
)
def test_bad_results_are_one_sentence_and_nothing_is_written(
    app: typer.Typer, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UndersongError, match=said):
        call(app, path)
    assert not (tmp_path / "report.html").exists()


def test_bad_audio_folders_are_named(app: typer.Typer, file: Path, tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="is not a folder"):
        call(app, file, "--audio", tmp_path / "nowhere")
    with pytest.raises(UndersongError, match="holds none of the report's"):
        call(app, file, "--audio", tmp_path)


def test_the_verb_loads_nothing_heavy_until_it_runs() -> None:
    code = (
        "import sys, undersong.cli.report; heavy = {'jinja2', 'scipy', 'numpy', 'pydantic', 'matplotlib', 'torch'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
