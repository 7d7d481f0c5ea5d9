"""The tutorials are true: the notebook runs, the commands of docs/tutorial.md run and find what the page says."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import page_of_notebook
import pytest
from pages import commands, run
from typer.main import get_command

from undersong.cli.app import app

DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL = (DOCS / "tutorial.md").read_text()
COMMANDS = commands(TUTORIAL)
VERBS = get_command(app).commands


def test_the_notebook_is_one_and_holds_no_output() -> None:
    read = json.loads(page_of_notebook.NOTEBOOK.read_text())
    assert (read["nbformat"], read["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in read["cells"]}) == len(read["cells"])
    for cell in read["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)


QUICK = {
    '"sound": "logmel"': '"sound": "char-ngrams"',
    '"kinds": ["closest", "distant"]': '"kinds": ["closest", "distant"], "filters": {"speaker": ["A"]}',
    '"save_steps": [40]': '"save_steps": [1]',
    '"evaluation": {"modalities": ["text"]}': '"evaluation": {"modalities": ["text"], "max_new_tokens": 6}',
}


def run_cells(replaced: dict[str, str]) -> list[Any]:
    """Run cell by cell in one namespace, with words replaced; return the last expression of each cell."""
    space: dict[str, Any] = {"__name__": "notebook"}
    shown = []
    for source in (source for kind, source in page_of_notebook.cells() if kind == "code"):
        for old, new in replaced.items():
            source = source.replace(old, new)
        body = ast.parse(source).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "tutorial.ipynb", "exec"), space)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), "tutorial.ipynb", "eval"), space))
    return shown


def test_the_notebook_runs_on_a_smaller_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = "\n".join(source for _, source in page_of_notebook.cells())
    assert [whole.count(old) for old in QUICK] == [1] * len(QUICK)
    shown = run_cells(QUICK)
    assert len(shown) == 7
    assert list(shown[-1]["before.jsr"]) == [0.0, 0.0]
    assert (tmp_path / "out" / "notebook" / "report.html").is_file()


@pytest.mark.slow
def test_the_notebook_finds_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = run_cells({})
    said = " ".join(capsys.readouterr().out.split())  # whatever kinds of space there are
    assert "162 kept" in said
    assert "answered 0.0 % [0.0, 10.3] of typed harmful requests before and 13.9 % [6.9, 25.8] after fine" in said
    assert shown[-1]["p_adjusted"].tolist() == pytest.approx([0.0078125, 1.0])
    assert (tmp_path / "out" / "notebook" / "report.html").is_file()


def test_every_command_of_the_tutorial_is_one() -> None:
    """Quickly; running them all is slow."""
    assert len(COMMANDS) >= 12
    for line in COMMANDS:
        verb, *words = line.split(" || ")[0].split()[1:]
        known = {flag for one in VERBS[verb].params for flag in (*one.opts, *one.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.slow
def test_the_tutorial_finds_what_it_says(tmp_path: Path) -> None:
    pool, harm = re.findall(r"```json\n(.*?)```", TUTORIAL, re.S)
    (tmp_path / "pool.jsonl").write_text(pool)
    (tmp_path / "harm.jsonl").write_text(harm)
    said = {}
    for line in COMMANDS:
        plain, _, fails = line.partition(" || ")
        said[plain] = run([f"sh -c '{line}'" if fails else plain], tmp_path)
    verbs = ("evaluate", "gate", "screen")
    told = {verb: [text for line, text in said.items() if f" {verb} " in line] for verb in verbs}
    assert [re.search(r"JSR (\S+)", text)[1] for text in told["evaluate"]] == ["0.0%", "53.7%", "0.0%"]
    assert [text.splitlines()[-1] for text in told["gate"]] == ["exit code 1", "exit code 3"]
    assert "Kept the closest 162 of 648 by meaning" in told["screen"][0]
    kept = [json.loads(line)["id"] for line in (tmp_path / "mine" / "kept.jsonl").read_text().splitlines()]
    assert kept == ["1", "3"]
    assert "1    │ 4: how do i break the ice" in told["screen"][2]
    assert (tmp_path / "demo" / "report.html").is_file()
