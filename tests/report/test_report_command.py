"""`undersong report` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from results_factory import make_results, make_run
from typer.testing import CliRunner

from undersong.cli.report import report
from undersong.research.report import paper_figures
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
    assert "the report has no players; give --audio a folder" in call(app, file)
    results["screening"] = []
    file.write_text(json.dumps(results), encoding="utf-8")
    assert "no players" in call(app, file)  # the requests with replies are played as well
    results["examples"] = []
    file.write_text(json.dumps(results), encoding="utf-8")
    assert "Note:" not in call(app, file)  # it names no sample


def test_audio_is_found_by_sample_id(app: typer.Typer, file: Path, results: Json, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / f"{results['screening'][0]['closest'][0]['id']}.ogg").write_bytes(b"OggS")
    (folder / "someone-else.ogg").write_bytes(b"OggS")
    call(app, file, "--audio", folder)
    assert file.with_name("report.html").read_text(encoding="utf-8").count("<audio") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "There is no file"),
        (b"{not json", "is not JSON"),
        (b"\xff\xfe", "is not a text file"),
        (b"[1]", "holds no JSON object"),
        (b'{"schema": "other"}', "schema 'other'"),
        (b'{"schema": "undersong-results/2", "runs": [{"arm": 1}]}', "study"),
        (json.dumps(make_results([make_run("base", []) | {"arm": 1}])).encode(), r"runs\.0\.arm"),
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


def named(file: Path, results: Json, name: str) -> Path:
    """Another study's results, in a folder of its name."""
    other = file.parent / name / "results.json"
    other.parent.mkdir()
    other.write_text(json.dumps(results | {"study": results["study"] | {"name": name}}), encoding="utf-8")
    return other


def test_a_folder_stands_for_the_results_in_it(app: typer.Typer, file: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "report.html") in call(app, tmp_path)


def test_several_studies_stand_side_by_side(
    app: typer.Typer, file: Path, results: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = named(file, results, "other")
    assert "studies.html" in call(app, file, other)
    page = (tmp_path / "studies.html").read_text(encoding="utf-8")
    assert "2 studies compared" in page.lower()
    call(app, file, other.parent, "--out", tmp_path / "side.html")
    assert (tmp_path / "side.html").read_text(encoding="utf-8") == page
    for option in (("--markdown", "x.md"), ("--audio", tmp_path), ("--figures", "x"), ("--show-replies",)):
        with pytest.raises(UndersongError, match=f"{option[0]} is for one study and 2 are named"):
            call(app, file, other, *option)


def test_the_folder_of_a_matrix_stands_for_all_its_studies(
    app: typer.Typer, file: Path, results: Json, tmp_path: Path
) -> None:
    root = tmp_path / "matrix"
    root.mkdir()
    for name in ("one", "two"):
        named(root / "results.json", results, name)
    (root / "store").mkdir()
    call(app, root, "--out", tmp_path / "side.html")
    page = (tmp_path / "side.html").read_text(encoding="utf-8")
    assert "<title>one and two – undersong report</title>" in page


def test_a_folder_without_results_is_one_sentence(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(UndersongError, match=r"holds a store and no results\.json"):
        call(app, tmp_path)
    with pytest.raises(UndersongError, match=r"holds no results\.json"):
        call(app, tmp_path / "store")


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"PAR1", b"[" * 100_000, b'{"schema": null}'])
def test_a_foreign_file_is_one_sentence(app: typer.Typer, tmp_path: Path, content: bytes) -> None:
    foreign = tmp_path / "verdicts.parquet"
    foreign.write_bytes(content)
    with pytest.raises(UndersongError, match=r"^[^\n]*$"):
        call(app, foreign)


def test_figures_are_drawn_where_told(
    app: typer.Typer, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("undersong.research.report.paper_figures.FIGURES", {"one": paper_figures.draw_jsr_by_kind})
    said = call(app, file, "--figures", tmp_path / "figures")
    assert said.count("figure ") == 2
    assert (tmp_path / "figures" / "one.pdf").is_file()
