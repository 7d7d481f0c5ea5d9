"""Recipes and experiments are packages: they find each other by import, and every command that is documented is one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(file for folder in ("recipes", "experiments", "examples") for file in (ROOT / folder).rglob("*.py"))
PAGES = [
    file
    for folder in ("docs", "studies", "src")
    for file in (ROOT / folder).rglob("*.*")
    if file.suffix in {".md", ".yaml"}
]
WRITTEN = [ROOT / "Makefile", *PAGES, *FILES]


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.partition(".")[0] for name in names}


def test_no_file_changes_the_search_path() -> None:
    assert [str(file) for file in FILES if "sys.path" in file.read_text()] == []


def test_what_ships_depends_on_no_experiment() -> None:
    files = [file for folder in ("src", "recipes") for file in (ROOT / folder).rglob("*.py")]
    assert [str(file) for file in files if "experiments" in imported(file)] == []
    assert [str(file) for file in (ROOT / "src").rglob("*.py") if "recipes" in imported(file)] == []


COMMANDS = sorted(
    {name for file in WRITTEN for name in re.findall(r"python -m ((?:recipes|experiments)[\w.]*\w)", file.read_text())}
)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_documented_command_is_one(name: str) -> None:
    path = ROOT / name.replace(".", "/")
    file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert 'if __name__ == "__main__":' in file.read_text()


def test_paths_that_are_written_are_there() -> None:
    for file in WRITTEN:
        for path in re.findall(
            r"\b(?:recipes|experiments|examples)/[\w/]+\.(?:py|md|yaml|json|ipynb)\b", file.read_text()
        ):
            assert (ROOT / path).is_file(), f"{file}: {path}"
