"""The documented programs import from the front doors of the packages alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*")]
# Code that goes into the package itself, and a module that loads another library.
INTERNAL = {"docs/how-to/add-a-verb.md", "docs/how-to/add-a-defense.md", "docs/how-to/inspect.md"}
IMPORT = re.compile(r'^[ "\t]*(?:from|import) (undersong[\w.]*)', re.M)


def documented_imports() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        if page.is_file() and name not in INTERNAL:
            found += [(name, module) for module in IMPORT.findall(page.read_text())]
    return found


def test_documented_programs_import_from_front_doors() -> None:
    imports = documented_imports()
    assert len(imports) > 20
    assert [(page, module) for page, module in imports if module.count(".") > 1] == []


@pytest.mark.parametrize(
    "package",
    ["corpora", "defenses", "encoders", "evaluation", "integrations", "mechanism", "models", "pipeline", "proximity",
     "report", "results", "scale", "stages", "statistics", "store", "study", "tuning"],
)  # fmt: skip
def test_every_name_of_a_front_door_is_there(package: str) -> None:
    from importlib import import_module

    door = import_module(f"undersong.{package}")
    assert len(door.__all__) > 3
    assert [name for name in door.__all__ if getattr(door, name, None) is None] == []
