"""Kills while folders are removed: each vanishes under its name at once, and the same work then ends as it should."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

from publishing import dying_removing, forked

import undersong
from undersong.stages.engine import remove_shards
from undersong.stages.output_folder import locked_output_folder, partial_store
from undersong.store.atomic import remove_path, sweep_removed
from undersong.store.draft import Draft
from undersong.store.store import Artifact, Store


def all_kills(begin: Callable[[Path], object], work: Callable[[Path], object], place: Path) -> list[Path]:
    """Begin in a new folder each time, and kill the work before each removal; returns the folders."""
    folders = []
    for number in itertools.count(1):
        (folder := place / str(number)).mkdir()
        begin(folder)
        if forked(dying_removing(work, number), folder, place / "found") == 0:
            return folders
        folders.append(folder)


def fill(folder: Path) -> None:
    for name in ("a", "b/c", "b/d/e"):
        (folder / "full" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "full" / name).write_text(name)


def test_a_folder_vanishes_at_once(tmp_path: Path) -> None:
    killed = all_kills(fill, lambda folder: remove_path(folder / "full"), tmp_path)
    assert len(killed) == 6  # three files and three folders
    for folder in killed:
        assert not (folder / "full").exists()
        sweep_removed(folder, "full")
        assert not list(folder.iterdir())


def test_only_what_is_named_so_is_swept(tmp_path: Path) -> None:
    names = {".full.0a1b2c3d.removed", ".other.0a1b2c3d.removed", "full", ".full.notes"}
    for name in names:
        (tmp_path / name).mkdir()
    sweep_removed(tmp_path, "full")
    assert {path.name for path in tmp_path.iterdir()} == names - {".full.0a1b2c3d.removed"}
    sweep_removed(tmp_path / "missing")


def test_a_name_too_long_to_move_aside_is_removed_where_it_is(tmp_path: Path) -> None:
    (folder := tmp_path / ("x" * 250)).mkdir()
    (folder / "file").touch()
    remove_path(folder)
    assert not list(tmp_path.iterdir())


def command(folder: Path) -> list[str]:
    """A command with a partial store, as `evaluate` is one; returns what it made and what it found."""

    def make(draft: Draft) -> None:
        with draft.file("replies.parquet") as path:
            path.write_text("said")

    with (
        locked_output_folder(folder / "out") as out,
        partial_store(out, "key", ["replies/*/replies.parquet"], "replies") as store,
    ):
        made = [store.get_or_make("replies", 1, n, {}, make) for n in range(2)]
        assert all(artifact.path for artifact in made)  # verifies them
        out.mkdir(exist_ok=True)
    return sorted(path.name for path in folder.iterdir())


def test_a_partial_store_that_is_half_deleted_is_no_store(tmp_path: Path) -> None:
    """A kill during the deletion left a store with damaged artifacts, which the next run refused."""
    killed = all_kills(lambda _folder: None, command, tmp_path)
    assert len(killed) >= 2 * 2 + 2  # at least the files of both artifacts, and their folders
    for folder in killed:
        assert command(folder) == ["out"]


def test_the_work_of_other_options_is_removed_at_once_too(tmp_path: Path) -> None:
    def begin(folder: Path) -> None:
        for name in ("out.01234567.partial", "out.0123456789ab.state"):
            (folder / name / "replies").mkdir(parents=True)
            (folder / name / "replies" / "provenance.json").write_text("{}")

    def removed(folder: Path) -> None:
        with locked_output_folder(folder / "out"):
            pass

    killed = all_kills(begin, removed, tmp_path)
    for folder in killed:
        left = [path for path in folder.glob("out.*") if not (path / "replies" / "provenance.json").is_file()]
        assert not left
        removed(folder)
        assert not list(folder.iterdir())


def test_shards_vanish_at_once(tmp_path: Path) -> None:
    def artifact(folder: Path) -> Artifact:
        return Store(folder).locate("embeddings", 1, None, {})

    def begin(folder: Path) -> None:
        artifact(folder).location.mkdir(parents=True)
        (shards := artifact(folder).location.with_suffix(".shards")).mkdir()
        for number in range(2):
            (shards / str(number)).touch()

    killed = all_kills(begin, lambda folder: remove_shards(artifact(folder)), tmp_path)
    assert len(killed) == 3
    for folder in killed:
        assert not list(folder.glob("*/*.shards"))
        remove_shards(artifact(folder))
        assert [path.name for path in folder.glob("*/*")] == [artifact(folder).location.name]


def test_every_folder_is_removed_in_this_one_way() -> None:
    source = Path(undersong.__file__).parent
    users = {str(file.relative_to(source)) for file in source.rglob("*.py") if "rmtree" in file.read_text()}
    assert users == {os.path.join("store", "atomic.py")}
