"""The run context tells a step when its first artifact is made, and says so if all of it is in the store."""

from __future__ import annotations

from pathlib import Path

from undersong.stages.context import RunContext
from undersong.store.draft import Draft
from undersong.store.store import Store


def make(draft: Draft) -> None:
    with draft.file("a.txt") as path:
        path.write_text("a")


def test_a_step_is_announced_when_it_makes_something_and_else_as_in_the_store(tmp_path: Path) -> None:
    for said in (["al: closest seed 0 (1 of 2)"], ["al: closest seed 0 (1 of 2): in the store"]):
        lines: list[str] = []
        ctx = RunContext(Store(tmp_path), say=lines.append)
        ctx.begin_step("al: closest seed 0", 1, 2)
        assert lines == []
        for config in ("adapter", "replies"):
            ctx.store.get_or_make("stage", 1, config, {}, make)
        ctx.end_step()
        assert lines == said


def test_a_note_is_said_once_and_goes_where_notes_go() -> None:
    lines: list[str] = []
    notes: list[str] = []
    RunContext(Store("nowhere"), say=lines.append).announce_once("a note")
    ctx = RunContext(Store("nowhere"), say=lines.append, note=notes.append)
    for _ in range(2):
        ctx.announce_once("another")
    assert (lines, notes) == (["a note"], ["another"])
