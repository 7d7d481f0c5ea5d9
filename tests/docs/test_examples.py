"""examples/: each program is the one of its page, word for word.

The tests of the pages run these blocks: tests/audits/test_python_page.py, tests/evaluation/test_judge_custom.py,
tests/encoders/test_custom.py; the notebook runs in test_docs_tutorials.py.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import outside_links
import page_of_notebook
import pytest
import yaml
from pages import page

import undersong
from undersong.study.load import load_study
from undersong.study.schema import Study

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# File -> page of docs/how-to, and which of its Python blocks.
PLACES = {
    "screen.py": ("python", 1),
    "audit.py": ("python", 2),
    "stop_training.py": ("python", 3),
    "judge.py": ("add-a-judge", 0),
    "encoder.py": ("add-an-encoder", 0),
}


def documented(name: str) -> str:
    """The block of the page, without a comment that names its file."""
    where, number = PLACES[name]
    block = re.findall(r"```python\n(.*?)```", page(where), re.S)[number]
    return re.sub(r"\A# \w+\.py\n", "", block)


def test_every_program_has_its_page() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(PLACES)


@pytest.mark.parametrize("name", PLACES)
def test_a_program_is_the_one_of_its_page(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    docstring, _, program = text.partition("\n\n")
    assert ast.get_docstring(ast.parse(text)) == docstring.strip('"')
    assert program == documented(name)


def test_the_study_is_the_one_of_the_page() -> None:
    (call,) = [
        node
        for node in ast.walk(ast.parse(documented("audit.py")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "undersong.audit"
    ]
    keys = ast.literal_eval(call.args[0])
    assert yaml.safe_load((EXAMPLES / "study.yaml").read_text()) == keys
    assert load_study(EXAMPLES / "study.yaml") == Study.model_validate(keys)


def test_links_of_the_notebook_lead_somewhere_there_and_in_the_site() -> None:
    for kind, text in page_of_notebook.cells():
        for target, _ in outside_links.links(text) if kind == "markdown" else ():
            assert (EXAMPLES / target).is_file(), target
    for target, _ in outside_links.links(page_of_notebook.page()):
        assert (ROOT / "docs" / target).is_file(), target


def test_a_program_runs_by_its_path(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(Path(undersong.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(EXAMPLES / "screen.py")]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ kept; 0 unusable", done.stdout)
