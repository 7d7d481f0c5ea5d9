"""Kills in the moments when a command publishes: the next run ends as an undisturbed one and leaves no litter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import publishing
import pytest

import undersong


def kills(work: str, place: str, folder: Path) -> int:
    source, helpers = Path(undersong.__file__).parents[1], Path(publishing.__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (source, helpers)))}
    command = [sys.executable, publishing.__file__, work, place, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-1])


QUICK = [("screen", "publish"), ("evaluate", "publish"), ("run", "results")]


@pytest.mark.parametrize(
    ("work", "place"),
    [*QUICK, *(pytest.param(*place, marks=pytest.mark.slow) for place in publishing.PLACES if place not in QUICK)],
)
def test_a_kill_at_each_place_of_publishing(work: str, place: str, tmp_path: Path) -> None:
    """A folder is killed twice: when it is new, and between the two renames that replace an earlier one."""
    assert kills(work, place, tmp_path) == (2 if publishing.PLACES[work, place][0] == r".*/out" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("work", publishing.WORKS)
def test_kills_before_every_removal(work: str, tmp_path: Path) -> None:
    assert kills(work, "removals", tmp_path) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("work", publishing.WORKS)
def test_kills_before_and_after_every_rename(work: str, tmp_path: Path) -> None:
    assert kills(work, "all", tmp_path) >= 4
