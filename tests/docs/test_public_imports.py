"""What the documentation imports exists, and only `undersong` itself gathers names of other modules."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

import undersong

ROOT = Path(__file__).parents[2]
PACKAGE = Path(undersong.__file__).parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py")]
GUIDES = {"add-a-defense.md", "add-a-verb.md"}  # they show code that a contributor adds to the package
IMPORT = re.compile(r"^[ \t]*from (undersong[\w.]*) import (\([^)]*\)|[^\n(]+)$", re.M)


def documented_names() -> list[tuple[str, str, str]]:
    """Page, module and name of each import in the documentation and the examples."""
    found = []
    for page in PAGES:
        if page.name in {"CHANGELOG.md", *GUIDES}:
            continue
        for module, names in IMPORT.findall(page.read_text()):
            tree = ast.parse(f"from {module} import {names}")
            found += [(page.name, module, alias.name) for alias in tree.body[0].names]  # type: ignore[attr-defined]
    return found


def test_the_documentation_imports_what_there_is() -> None:
    names = documented_names()
    assert len(names) > 20
    for page, module, name in names:
        assert hasattr(import_module(module), name), f"{page}: from {module} import {name}"


@pytest.mark.parametrize("name", undersong.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(undersong, name) is not None


def test_only_the_package_itself_gathers_names() -> None:
    assert [str(stub.relative_to(PACKAGE)) for stub in PACKAGE.rglob("*.pyi")] == ["__init__.pyi"]
