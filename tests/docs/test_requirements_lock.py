"""requirements.lock holds what pyproject.toml asks for, and the Makefile installs from it alone."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PINNED = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^ ;]+)(?: ; (?P<marker>.+?))? \\$", re.MULTILINE)
LOCK = (ROOT / "requirements.lock").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked_versions(name: str, python: str = "3.11") -> list[Version]:
    """The versions of a package that the lock takes for a Python on Linux."""
    found = []
    for pin in PINNED.finditer(LOCK):
        requirement = Requirement(f"{pin['name']}=={pin['version']}" + (f"; {pin['marker']}" if pin["marker"] else ""))
        environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
        if pin["name"] == canonicalize_name(name) and (
            requirement.marker is None or requirement.marker.evaluate(environment)
        ):
            found.append(Version(pin["version"]))
    return found


def all_requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    return [requirement for line in lines if (requirement := Requirement(line)).name != "undersong"]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_has_one_version_of_each_dependency_and_it_is_in_range(python: str) -> None:
    for requirement in all_requirements():
        versions = locked_versions(requirement.name, python)
        assert len(versions) == 1, f"{requirement.name}: {versions}; run make lock UPGRADE="
        assert versions[0] in requirement.specifier, f"{requirement}: {versions[0]}; run make lock UPGRADE="


def test_each_locked_package_has_a_hash_and_no_address() -> None:
    pins = list(PINNED.finditer(LOCK))
    ends = [pin.start() for pin in pins[1:]] + [len(LOCK)]
    assert len(pins) > 100
    for pin, end in zip(pins, ends, strict=True):
        assert "--hash=sha256:" in LOCK[pin.end() : end], pin["name"]
    assert "://" not in LOCK
    assert "--index-url" not in LOCK


def test_what_builds_and_installs_is_locked_too() -> None:
    for name in ("uv", "hatchling", "editables"):
        assert len(locked_versions(name)) == 1
    torch = re.search(r"^TORCH_VERSION := (\S+)$", MAKEFILE, re.MULTILINE)
    assert torch
    assert locked_versions("torch") == [Version(torch[1])]


def test_make_installs_the_package_through_the_lock_alone() -> None:
    lines = [line for line in MAKEFILE.splitlines() if "pip install" in line]
    ways = (
        "--constraint $(LOCK)",
        "--require-hashes",
        "torch==$(TORCH_VERSION)",
        "--resolution",
        "--no-deps resemblyzer",
    )
    assert lines
    assert not [line for line in lines if not any(way in line for way in ways)]


def test_the_weekly_workflow_tests_newest_and_oldest_versions() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "dependencies.yml").read_text())
    job = workflow["jobs"]["test"]
    versions = {row["versions"] for row in job["strategy"]["matrix"]["include"]}
    assert versions == {"newest", "oldest"}
    assert [step["run"] for step in job["steps"] if "run" in step] == ['make "test-$VERSIONS"']
    assert "schedule" in workflow[True]  # YAML reads the key `on` as true
    assert {f"RESOLUTION_{name} :=" in MAKEFILE for name in versions} == {True}
