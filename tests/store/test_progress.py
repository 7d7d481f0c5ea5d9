"""How far an artifact is, while one process makes it and another looks."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from undersong.store.store import DONE, IN_PROGRESS, INTERRUPTED, MISSING, Store, artifact_state

# Makes the artifact half, says so, and goes on when something is typed.
SLOWLY = """
import sys
from undersong.store.store import Store

def make(draft):
    with draft.file("shard") as path:
        path.write_text("half")
    print("begun", flush=True)
    sys.stdin.readline()

Store(sys.argv[1]).get_or_make("stage", 1, {}, {}, make)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_missing_then_being_made_then_done_or_left(tmp_path: Path, killed: bool) -> None:
    place = Store(tmp_path).locate("stage", 1, {}, {})
    assert artifact_state(place) == MISSING
    assert not list(tmp_path.iterdir())
    command = [sys.executable, "-c", SLOWLY, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    assert artifact_state(place) == IN_PROGRESS
    if killed:
        process.kill()
    process.communicate(None if killed else "go on\n", timeout=1800)
    assert process.returncode == (-signal.SIGKILL if killed else 0)
    assert artifact_state(place) == (INTERRUPTED if killed else DONE)


def test_a_folder_without_its_lock_is_done(tmp_path: Path) -> None:
    made = Store(tmp_path).get_or_make("stage", 1, {}, {}, lambda draft: None)
    made.journal.unlink()
    assert artifact_state(made) == DONE
