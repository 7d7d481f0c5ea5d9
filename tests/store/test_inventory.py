"""What a store holds, its removal, and the verb `store`."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Undersong, undersong_in

from undersong.store.draft import Draft
from undersong.store.inventory import list_store, with_inputs
from undersong.store.store import Store
from undersong.types import UndersongError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store: b is made from a, c stands alone and is old, d is half-made; and files that are no artifacts."""
    store = Store(tmp_path / "store")

    def make(size: int) -> Callable[[Draft], None]:
        return lambda draft: (draft.path / "x").write_bytes(b"x" * size) and None

    first = store.get_or_make("corpus", 1, "a", {}, make(1000))
    store.get_or_make("adapter", 1, "b", {"corpus": first}, make(2_000_000))
    old = store.get_or_make("corpus", 1, "c", {}, make(10))
    provenance = json.loads((old.location / "provenance.json").read_text())
    (old.location / "provenance.json").write_text(json.dumps({**provenance, "created": "2020-01-01T00:00:00Z"}))

    def fail(draft: Draft) -> None:
        with draft.file("shard") as path:
            path.write_bytes(b"x")
        raise UndersongError("stopped")

    with pytest.raises(UndersongError):
        store.get_or_make("replies", 1, "d", {}, fail)
    (store.root / "notes.txt").write_text("mine")
    (store.root / "corpus" / "mine").mkdir()
    (store.root / "corpus" / ("0" * 20)).symlink_to(tmp_path)
    return store.root


@pytest.fixture
def undersong(tmp_path: Path) -> Undersong:
    return undersong_in(tmp_path)


def names(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*")}


def test_every_artifact_is_listed_and_nothing_else(root: Path, undersong: Undersong) -> None:
    folders = list_store(root)
    assert [(folder.stage, folder.is_finished) for folder in folders] == [
        ("adapter", True),
        ("corpus", True),
        ("corpus", True),
        ("replies", False),
    ]
    assert folders[1].created == 1577836800
    code, out, _ = undersong("store", root)
    assert code == 0
    rows = [line.replace("│", " ").split() for line in out.splitlines()]
    assert ["corpus", "2"] in [row[:2] for row in rows]
    assert ["adapter", "1", "2.0", "MB"] in [row[:4] for row in rows]
    assert ["replies", "0", "1"] in [row[:3] for row in rows]


def test_old_artifacts_are_removed_only_with_delete(root: Path, undersong: Undersong) -> None:
    before = names(root)
    _, out, _ = undersong("store", root, "--older-than", "30d")
    assert "1 of 4 artifacts (" in out
    assert "would be removed with --delete." in out
    assert names(root) == before
    code, out, _ = undersong("store", root, "--older-than", "30d", "--delete")
    assert code == 0
    assert "were removed." in out
    gone = before - names(root)
    assert {path.parts[0] for path in gone} == {"corpus"}
    assert len({path.parts[1] for path in gone}) == 1
    assert (root / "notes.txt").read_text() == "mine"
    assert Store(root).find("corpus", 1, "a", {}) is not None
    assert Store(root).find("corpus", 1, "c", {}) is None
    made = Store(root).get_or_make("corpus", 1, "c", {}, lambda draft: (draft.path / "x").write_bytes(b"y") and None)
    assert (made.path / "x").read_bytes() == b"y"  # made again under its old name


def test_nothing_is_removed_while_a_process_makes_an_artifact(root: Path, undersong: Undersong) -> None:
    (journal,) = (root / "replies").glob(".*.journal")
    with journal.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = names(root)
        code, _, err = undersong("store", root, "--older-than", "0h", "--delete")
    assert code == 2
    assert "remove artifacts when no run is active." in err
    assert names(root) == before


def test_what_a_kill_leaves_of_a_removal_is_no_artifact_and_goes_with_the_next(
    root: Path, undersong: Undersong
) -> None:
    (old,) = (folder for folder in list_store(root) if folder.created == 1577836800)
    os.rename(old.path, old.path.with_name(f".{old.path.name}.removed"))
    assert len(list_store(root)) == 3
    undersong("store", root, "--older-than", "0h", "--delete")
    assert not list(root.glob("*/.*.removed"))


def test_inputs_of_inputs_are_needed(root: Path) -> None:
    folders = list_store(root)
    adapter = next(folder for folder in folders if folder.stage == "adapter")
    assert {stage for stage, _ in with_inputs([("adapter", adapter.name)], folders)} == {"adapter", "corpus"}
    assert len(with_inputs([("adapter", adapter.name)], folders)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--delete"], "--delete removes what is chosen; choose with --older-than or --unused-by."),
        (["--older-than", "soon"], "--older-than 'soon' is no age; write a whole number and h, d or w, such as 30d."),
        (["--unused-by", "none.yaml"], "There is no study file none.yaml"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    root: Path, undersong: Undersong, arguments: list[str], message: str
) -> None:
    code, _, err = undersong("store", root, *arguments)
    assert code == 2
    assert message in err
    code, _, err = undersong("store", root.parent, "--older-than", "1d")
    assert "is no store of undersong; name the folder that was given as --store." in err


def test_the_verb_lists_and_prunes_the_users_cache_by_default(
    root: Path, undersong: Undersong, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "UNDERSONG_CACHE is empty, so there is no cache to list; name a store." in undersong("store")[2]
    monkeypatch.setenv("UNDERSONG_CACHE", str(root / "none"))
    assert "does not exist, so nothing is kept there" in undersong("store")[2]
    (root / "none").mkdir()
    assert "is empty, so there is nothing to list" in undersong("store")[2]
    (root / "none").rmdir()
    monkeypatch.setenv("UNDERSONG_CACHE", str(root))
    code, out, _ = undersong("store")
    assert code == 0
    assert "adapter" in out
    code, out, _ = undersong("store", "--older-than", "1000d", "--delete")
    assert "1 of 4 artifacts" in out
    assert len(list_store(root)) == 3
