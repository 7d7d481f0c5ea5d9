"""What an artifact keeps, and what a draft takes."""

import ast
import json
import os
import platform
import stat
import time
from importlib import metadata
from pathlib import Path

import pytest

import undersong
from undersong import __version__
from undersong.store.atomic import write_atomic
from undersong.store.draft import Draft
from undersong.store.hashing import hash_folder
from undersong.store.provenance import PROVENANCE
from undersong.store.store import Store
from undersong.types import UndersongError

HASH = "ab" * 32


def write_note(draft: Draft) -> None:
    with draft.file("note.txt") as path:
        path.write_text("hello")


def unreachable(draft: Draft) -> None:
    raise AssertionError("made twice")


def test_the_same_question_is_a_look_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.get_or_make("stage", 1, {"a": 1}, {"x": HASH}, write_note)
    before = hash_folder(tmp_path)
    assert store.get_or_make("stage", 1, {"a": 1}, {"x": HASH}, unreachable) == made
    assert store.find("stage", 1, {"a": 1}, {"x": HASH}) == made
    assert store.find("stage", 1, {"a": 2}, {"x": HASH}) is None
    assert hash_folder(tmp_path) == before
    assert made.path == tmp_path / "stage" / made.hash[:20]
    assert made.hash == store.key("stage", 1, {"a": 1}, {"x": HASH})


def test_find_touches_nothing(tmp_path: Path) -> None:
    assert Store(tmp_path / "new").find("stage", 1, {}, {}) is None
    assert list(tmp_path.iterdir()) == []


def test_provenance_says_how_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [100.0, 10.0]  # wall and processor
    monkeypatch.setattr("undersong.store.draft._clock", lambda: tuple(seconds))
    moment = time.gmtime(1_700_000_000)
    monkeypatch.setattr(time, "gmtime", lambda: moment)

    def make(draft: Draft) -> None:
        seconds[:] = 102.0, 10.5
        draft.note(device="cpu", frozen={"before": "x"})
        draft.note(device="cuda")
        seconds[:] = 102.5, 10.75

    first = Store(tmp_path).get_or_make("corpus", 3, {"rate": 0.1}, {}, write_note)
    made = Store(tmp_path).get_or_make(
        "stage", "2b", {"t": (1, 2)}, {"corpus": first, "raw": HASH}, make, seed=5, packages=["pytest", "no-such-thing"]
    )
    facts = made.provenance()
    assert facts["stage"] == "stage"
    assert facts["version"] == "2b"
    assert facts["hash"] == made.hash
    assert facts["config"] == {"t": [1, 2]}
    assert facts["inputs"] == {"corpus": first.hash, "raw": HASH}
    assert facts["seed"] == 5
    versions = {"undersong": __version__, "pytest": metadata.version("pytest"), "no-such-thing": None}
    assert facts["packages"] == versions
    assert facts["python"] == platform.python_version()
    assert facts["notes"] == {"device": "cuda", "frozen": {"before": "x"}}
    assert facts["wall_seconds"] == 2.5
    assert facts["cpu_seconds"] == 0.75
    assert facts["created"] == "2023-11-14T22:13:20Z"


def fail_halfway(draft: Draft) -> None:
    with draft.file("deep/part.npz") as path:
        assert path.suffix == ".npz"
        path.write_text("half")
        assert not draft.has("deep/part.npz")
        raise RuntimeError("the writer fails")


@pytest.mark.parametrize(
    ("kept", "error", "is_removed"),
    [
        ("nothing", UndersongError, True),
        ("unfinished", UndersongError, True),
        ("finished", UndersongError, False),
        ("note", UndersongError, False),
        ("shards", UndersongError, False),
        ("nothing", RuntimeError, False),
    ],
)
def test_an_error_about_the_input_leaves_no_empty_draft(
    tmp_path: Path, kept: str, error: type[Exception], is_removed: bool
) -> None:
    def fail(draft: Draft) -> None:
        if kept == "unfinished":
            (draft.path / "part").write_text("half")
        elif kept == "finished":
            with draft.file("part") as path:
                path.write_text("whole")
        elif kept == "note":
            draft.note(device="cpu")
        elif kept == "shards":
            draft.path.with_suffix(".shards").mkdir()
        raise error("The input is wrong; change it.")

    with pytest.raises(error, match="The input is wrong"):
        Store(tmp_path).get_or_make("stage", 1, {}, {}, fail)
    assert (not list((tmp_path / "stage").iterdir())) == is_removed
    made = Store(tmp_path).get_or_make("stage", 1, {}, {}, write_note)
    assert made.journal.exists()
    assert (made.path / "part").exists() == (kept == "finished")


def test_a_shard_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def make(draft: Draft) -> None:
        with pytest.raises(RuntimeError):
            fail_halfway(draft)
        assert list((draft.path / "deep").iterdir()) == []
        with draft.file("deep/part.npz") as path:
            path.write_text("whole")
        assert draft.has("deep/part.npz")
        (draft.path / "direct.txt").write_text("direct")
        assert not draft.has("direct.txt")

    made = Store(tmp_path).get_or_make("stage", 1, {}, {}, make)
    assert (made.path / "deep/part.npz").read_text() == "whole"
    assert sorted(os.listdir(made.path)) == ["deep", "direct.txt", PROVENANCE]


def test_a_shard_may_be_written_again(tmp_path: Path) -> None:
    def make(draft: Draft) -> None:
        for text in ("old", "new"):
            with draft.file("file.txt") as path:
                path.write_text(text)
            with draft.file("folder") as path:
                path.mkdir()
                (path / text).write_text(text)

    made = Store(tmp_path).get_or_make("stage", 1, {}, {}, make)
    assert (made.path / "file.txt").read_text() == "new"
    assert os.listdir(made.path / "folder") == ["new"]
    assert sorted(os.listdir(made.path)) == ["file.txt", "folder", PROVENANCE]


def test_private_files_are_private_from_the_first_byte(tmp_path: Path) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    def make(draft: Draft) -> None:
        with draft.file("replies.parquet", mode=0o600) as path:
            assert mode(path) == 0o600
            path.write_text("hush")

    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "report.html", b"open")
    finally:
        os.umask(before)
    assert mode(tmp_path / "report.html") == 0o644
    assert mode(Store(tmp_path).get_or_make("replies", 1, {}, {}, make).path / "replies.parquet") == 0o600


@pytest.mark.parametrize("bad", ["", ".", "/etc/x", "../x", "a/../../x", PROVENANCE, ".writing-x"])
def test_a_shard_stays_inside_its_artifact(tmp_path: Path, bad: str) -> None:
    def make(draft: Draft) -> None:
        with draft.file(bad) as path:
            path.write_text("out")

    with pytest.raises(ValueError, match="inside the artifact"):
        Store(tmp_path / "store").get_or_make("stage", 1, {}, {}, make)
    assert os.listdir(tmp_path) == ["store"]


def test_write_atomic_replaces_or_leaves_alone(tmp_path: Path) -> None:
    target = tmp_path / "out" / "report.html"
    write_atomic(target, b"one")
    write_atomic(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(target.parent) == ["report.html"]
    with pytest.raises(UndersongError, match=r"report\.html"):
        write_atomic(target / "below-a-file", b"three")
    assert target.read_bytes() == b"two"


def test_a_damaged_artifact_is_named_and_not_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.get_or_make("stage", 1, {}, {}, write_note)
    other = store.get_or_make("stage", 2, {}, {}, write_note)
    whole = (made.location / PROVENANCE).read_bytes()
    for damage in (b"", b"{", b"[]x", b"7"):
        (made.location / PROVENANCE).write_bytes(damage)
        with pytest.raises(UndersongError, match=str(made.location)):
            store.find("stage", 1, {}, {})
    (made.location / PROVENANCE).write_bytes((other.location / PROVENANCE).read_bytes())
    with pytest.raises(UndersongError, match="another artifact"):
        store.get_or_make("stage", 1, {}, {}, unreachable)
    (made.location / PROVENANCE).unlink()
    with pytest.raises(UndersongError, match="provenance"):
        store.get_or_make("stage", 1, {}, {}, unreachable)
    (made.location / PROVENANCE).write_bytes(whole)
    assert json.loads(whole)["hash"] == store.get_or_make("stage", 1, {}, {}, unreachable).hash


def test_a_file_is_read_only_after_it_was_checked(tmp_path: Path) -> None:
    """Bytes of the same number pass the check of a look-up; `path` is what a stage reads through."""
    store = Store(tmp_path)
    made = store.get_or_make("stage", 1, {}, {}, write_note)
    file = next(item for item in made.location.iterdir() if item.name != PROVENANCE)
    file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
    assert store.find("stage", 1, {}, {}) == made
    with pytest.raises(UndersongError, match=f"{made.location} is damaged .{file.name} is not what was written"):
        made.path  # noqa: B018


NAME_QUESTIONS = {"exists", "name", "relative_to", "glob", "iterdir"}  # read no file
PATH_QUESTIONS = ("shards_path", "_answers_path", "_batches_path")  # functions that name files beside the folder


def test_code_reads_artifacts_only_through_the_check() -> None:
    """Outside the store `location` is asked only whether it exists and what it or its content is called."""
    root = Path(undersong.__file__).parents[2]
    for file in (file for folder in ("src", "experiments", "recipes") for file in (root / folder).rglob("*.py")):
        if file.parts[-2:] == ("store", "store.py"):
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        allowed = {
            id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in NAME_QUESTIONS
        } | {
            id(node.args[0])
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PATH_QUESTIONS
        }
        wrong = [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "location" and id(node) not in allowed
        ]
        assert not wrong, f"{file}:{wrong}: read an artifact through `path`, which checks it"
