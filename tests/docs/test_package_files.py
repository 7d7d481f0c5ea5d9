"""What is published beside the code: small enough, typed, and saying one version."""

from __future__ import annotations

import io
import tomllib
import zipfile
from pathlib import Path

import yaml

import undersong

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "undersong"
MOST = 20_000_000  # bytes of a wheel


def test_a_wheel_stays_small() -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in PACKAGE.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                wheel.write(file, file.relative_to(PACKAGE.parent))
    assert (PACKAGE / "py.typed").is_file()
    assert len(held.getvalue()) < MOST


def test_all_files_say_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == undersong.__version__ == cited["version"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
    assert project["license"] == cited["license"]
    assert project["description"].lower() == cited["abstract"].strip().lower()
    oldest = project["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {oldest}" in project["classifiers"]
