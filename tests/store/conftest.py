"""`three_stages.py`, in a process of its own that may die, or in this one."""

import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import undersong
from undersong.store.store import Artifact

SCRIPT = Path(__file__).with_name("three_stages.py")


@pytest.fixture(scope="session")
def start() -> Callable[..., "subprocess.Popen[str]"]:
    def popen(root: Path, *options: str, failpoint: str = "") -> "subprocess.Popen[str]":
        source = str(Path(undersong.__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": source, "UNDERSONG_FAILPOINT": failpoint}
        command = [sys.executable, str(SCRIPT), str(root), *options]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return popen


@pytest.fixture(scope="session")
def run() -> Callable[[Path], list[Artifact]]:
    return runpy.run_path(str(SCRIPT))["run"]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """pytest's, but in memory where that can be: a killed process is no power cut, and fsync takes most of the time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)
