"""Die anywhere, run again: the same bytes as an undisturbed run, and no half artifact in between."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from undersong.store.atomic import FAILPOINTS, failpoint
from undersong.store.draft import Draft
from undersong.store.provenance import PROVENANCE
from undersong.store.store import Artifact, Store
from undersong.types import UndersongError

Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[[Path], list[Artifact]]
TIMES = ("wall_seconds", "cpu_seconds", "created")


def contents(root: Path) -> dict[str, bytes | int]:
    """Every file of the store outside its lock files, times taken out, and its permissions."""
    out: dict[str, bytes | int] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_dir() or name.endswith(".journal"):
            continue
        out[f"{name} mode"] = path.stat().st_mode
        out[name] = path.read_bytes()
        if path.name == PROVENANCE:
            facts = json.loads(path.read_bytes())
            out[name] = json.dumps({key: facts[key] for key in facts if key not in TIMES}).encode()
    return out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, start: Start) -> dict[str, bytes | int]:
    root = tmp_path_factory.mktemp("undisturbed")
    process = start(root)
    assert process.wait() == 0, process.communicate()[1]
    found = contents(root)
    assert len(found) == 2 * 10
    return found


def complete(root: Path) -> list[Path]:
    return [path for path in root.glob("*/*") if not path.name.startswith(".") and path.suffix != ".partial"]


def assert_whole(root: Path, undisturbed: dict) -> None:
    """Whatever has its final name is as an undisturbed run makes it."""
    here = contents(root)
    for folder in complete(root):
        names = {name for name in undisturbed if name.startswith(f"{folder.relative_to(root).as_posix()}/")}
        assert names
        assert {name: here.get(name) for name in names} == {name: undisturbed[name] for name in names}


@pytest.mark.parametrize("point", [point for point in FAILPOINTS if point != "draft:swept"])
def test_killed_at_every_passing(tmp_path: Path, start: Start, run: Run, undisturbed: dict, point: str) -> None:
    for n in range(1, 30):
        root = tmp_path / f"passing-{n}"
        process = start(root, failpoint=f"{point}:{n}")
        code = process.wait()
        assert code in (0, 137), process.communicate()[1]
        assert_whole(root, undisturbed)
        if code == 0:  # passed fewer than n times
            break
        assert contents(root) != undisturbed or point.startswith("publish"), "died after all was done"
        run(root)
        assert contents(root) == undisturbed
    assert n > 1, f"{point} is never passed"


def test_killed_again_and_again(tmp_path: Path, start: Start, run: Run, undisturbed: dict) -> None:
    """One store, killed at one point after the other, whatever state the last kill left."""
    codes = []
    for point in ("write:filled", "draft:swept", "write:renamed", *FAILPOINTS):
        process = start(tmp_path, failpoint=point)
        codes.append(process.wait())
        assert codes[-1] in (0, 137), process.communicate()[1]
        assert_whole(tmp_path, undisturbed)
    assert codes[:3] == [137, 137, 137]
    run(tmp_path)
    assert contents(tmp_path) == undisturbed


def test_a_finished_shard_is_not_made_again(tmp_path: Path, start: Start, undisturbed: dict) -> None:
    """Killed before part 1 is renamed: part 0 stays, part 1 alone is made."""
    process = start(tmp_path, failpoint="write:synced:4")  # words, its provenance, part 0, part 1
    assert process.wait() == 137
    (partial,) = tmp_path.glob("shards/*.partial")
    assert sorted(os.listdir(partial / "parts"))[-1:] == ["part-0.bin"]
    process = start(tmp_path)
    out, _ = process.communicate()
    assert [line for line in out.splitlines() if line.startswith("made")] == ["made part 1"]
    assert contents(tmp_path) == undisturbed


def make_two(draft: Draft) -> None:
    for name in ("one", "two"):
        if not draft.has(name):
            with draft.file(name) as path:
                path.write_text(name)


def interrupted(store: Store, note: str = "kept") -> Path:
    """A draft with one finished shard and one note, left by an exception."""

    def make(draft: Draft) -> None:
        draft.note(said=note)
        with draft.file("one") as path:
            path.write_text("first attempt")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_make("stage", 1, {}, {}, make)
    (partial,) = store.root.glob("stage/*.partial")
    return partial


def test_rubbish_in_the_partial_folder_is_swept(tmp_path: Path) -> None:
    partial = interrupted(Store(tmp_path))
    (partial / "two").write_text("half a shard that no journal vouches for")
    (partial / "sub" / "deep").mkdir(parents=True)
    (partial / "sub" / "deep" / ".writing-1-x").write_text("half")
    (partial / "link").symlink_to(tmp_path)
    (partial / PROVENANCE).write_text('{"hash": "no"}')
    made = Store(tmp_path).get_or_make("stage", 1, {}, {}, make_two)
    assert sorted(os.listdir(made.path)) == ["one", PROVENANCE, "two"]
    assert (made.path / "one").read_text() == "first attempt"
    assert (made.path / "two").read_text() == "two"
    assert made.provenance()["notes"] == {"said": "kept"}


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_journal_costs_one_shard(tmp_path: Path, cut: int) -> None:
    partial = interrupted(Store(tmp_path))
    journal = partial.with_name(f".{partial.stem}.journal")
    journal.write_bytes(journal.read_bytes()[:-cut])
    made = Store(tmp_path).get_or_make("stage", 1, {}, {}, make_two)
    assert (made.path / "one").read_text() == "one"
    assert made.provenance()["notes"] == {"said": "kept"}


def test_a_shard_that_is_gone_is_made_again(tmp_path: Path) -> None:
    (interrupted(Store(tmp_path)) / "one").unlink()
    assert (Store(tmp_path).get_or_make("stage", 1, {}, {}, make_two).path / "one").read_text() == "one"


def test_a_deleted_draft_leaves_no_memory(tmp_path: Path) -> None:
    """The user deletes the partial folder: notes and shards of that attempt are gone with it, for good."""

    def fail(draft: Draft) -> None:
        assert not draft.has("one")
        raise RuntimeError("before any note")

    partial = interrupted(Store(tmp_path), note="stale")
    (partial / "one").unlink()
    partial.rmdir()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            Store(tmp_path).get_or_make("stage", 1, {}, {}, fail)
    assert Store(tmp_path).get_or_make("stage", 1, {}, {}, make_two).provenance()["notes"] == {}


def test_a_folder_shard_survives(tmp_path: Path) -> None:
    calls = []

    def make(draft: Draft) -> None:
        if not draft.has("adapter"):
            calls.append("adapter")
            with draft.file("adapter") as path:
                (path / "deep").mkdir(parents=True)
                (path / "deep" / "weights").write_text("w")
        if len(calls) == 1:
            calls.append("stop")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        Store(tmp_path).get_or_make("stage", 1, {}, {}, make)
    made: Artifact = Store(tmp_path).get_or_make("stage", 1, {}, {}, make)
    assert calls == ["adapter", "stop"]
    assert (made.path / "adapter/deep/weights").read_text() == "w"


def test_seconds_of_kept_work_add_up(tmp_path: Path) -> None:
    partial = interrupted(Store(tmp_path))
    journal = partial.with_name(f".{partial.stem}.journal")
    journal.write_bytes(journal.read_bytes() + b'\n{"note":{},"seconds":[100.0,50.0]}')
    facts = Store(tmp_path).get_or_make("stage", 1, {}, {}, make_two).provenance()
    assert 99.9 < facts["wall_seconds"] < 110
    assert 49.9 < facts["cpu_seconds"] < 55


def test_a_misspelt_failpoint_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSONG_FAILPOINT", "write:synched:2")
    with pytest.raises(UndersongError, match="write:synced"):
        failpoint("write:synced")
