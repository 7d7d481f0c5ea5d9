"""How far an artefact is, while one process makes it and another looks."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from undersong.store import DONE, LEFT, MAKING, MISSING, Draft, Store, progress


def make_slowly(root: Path, begun: Event, finish: Event) -> None:
    def make(draft: Draft) -> None:
        with draft.file("shard") as path:
            path.write_text("half")
        begun.set()
        assert finish.wait(60)

    Store(root).get_or_make("stage", 1, {}, {}, make)


@pytest.mark.parametrize("killed", [False, True])
def test_missing_then_being_made_then_done_or_left(tmp_path: Path, killed: bool) -> None:
    place = Store(tmp_path).place("stage", 1, {}, {})
    assert progress(place) == MISSING
    assert not list(tmp_path.iterdir())
    context = multiprocessing.get_context("spawn")
    begun, finish = context.Event(), context.Event()
    process = context.Process(target=make_slowly, args=(tmp_path, begun, finish))
    process.start()
    assert begun.wait(60)
    assert progress(place) == MAKING
    if killed:
        process.kill()
    else:
        finish.set()
    process.join(60)
    assert process.exitcode == (-signal.SIGKILL if killed else 0)
    assert progress(place) == (LEFT if killed else DONE)


def test_a_folder_without_its_lock_is_done(tmp_path: Path) -> None:
    made = Store(tmp_path).get_or_make("stage", 1, {}, {}, lambda draft: None)
    made.journal.unlink()
    assert progress(made) == DONE
