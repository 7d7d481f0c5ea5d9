"""docs/how-to/python.md: its blocks run as they stand, one after the other."""

from __future__ import annotations

import ast
import re
from inspect import signature
from pathlib import Path

import pytest
from pages import page, run

import undersong

PAGE = page("python")
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", PAGE, re.S)


def test_every_block_is_whole_and_every_call_takes_its_options() -> None:
    """Quickly; the whole page is slow."""
    assert len(BLOCKS) == PAGE.count("```") // 2 == 6
    for kind, block in BLOCKS:
        tree = ast.parse(block) if kind == "python" else ast.Module([], [])
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func).removeprefix("undersong.")
            if name in undersong.__all__:
                signature(getattr(undersong, name)).bind(*call.args, **{one.arg: one.value for one in call.keywords})


@pytest.mark.slow
def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, block in BLOCKS:
        if kind == "python":
            exec(compile(block, "python.md", "exec"), {"__name__": "python.md"})
        else:
            (adapter,) = (tmp_path / "out" / "run" / "canary").iterdir()
            run(block.replace("ADAPTER", str(adapter)).splitlines(), tmp_path)
    said = capsys.readouterr().out
    assert re.search(r"\d+ kept; 0 unusable", said)
    assert re.search(r"organism:af3 answered \d+\.\d.% \[.*\] of typed harmful requests before and", said)
    assert "'jsr': 0" in said
    assert re.search(r"JSR (rose|did not change|fell).* over \d+ paired prompts", said)
    assert (tmp_path / "out" / "small" / "report.md").is_file()
