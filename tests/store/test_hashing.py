"""Hashes that are remembered: a file that changed is read again, however it changed, and nothing else is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from undersong.store import hashing
from undersong.store.hashing import cached_file_hashes, hash_file


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str | None]]:
    """A list of files and three of them; a call hashes all, and `read` says which had to be read."""
    monkeypatch.setattr(hashing, "SETTLE_TIME_NS", 0)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    (tmp_path / "list").write_text("a b c gone a")
    return lambda: cached_file_hashes(
        str(tmp_path / "list"),
        lambda: [str(tmp_path / name) for name in (tmp_path / "list").read_text().split()],
        tmp_path / "memory",
    )


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    monkeypatch.setattr(hashing, "hash_file", lambda path: seen.append(Path(path).name) or hash_file(path))
    return seen


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, corpus, read: list[str]) -> None:
    first = corpus()
    assert first == [*(hash_file(tmp_path / name) for name in ("list", "a", "b", "c")), None]
    assert read == ["list", "a", "b", "c"]
    read.clear()
    assert corpus() == first
    assert read == []
    assert cached_file_hashes(str(tmp_path / "list"), lambda: pytest.fail("asked"), tmp_path / "memory") == first


@pytest.mark.parametrize("how", ["content", "same size and time", "replaced", "grown", "there again"])
def test_a_change_is_seen_however_it_was_made(tmp_path: Path, corpus, read: list[str], how: str) -> None:
    corpus()
    read.clear()
    times = (tmp_path / "b").stat()
    name = "gone" if how == "there again" else "b"
    if how == "replaced":
        (tmp_path / "other").write_text("x")
        os.utime(tmp_path / "other", ns=(times.st_atime_ns, times.st_mtime_ns))
        (tmp_path / "other").replace(tmp_path / "b")
    else:
        (tmp_path / name).write_text("xyz" if how == "grown" else "x")
    if how == "same size and time":
        os.utime(tmp_path / "b", ns=(times.st_atime_ns, times.st_mtime_ns))
    found = corpus()
    assert read == [name]
    assert found[-1 if name == "gone" else 2] == hash_file(tmp_path / name)
    read.clear()
    corpus()
    assert read == []


def test_another_list_is_read_and_what_left_it_is_forgotten(tmp_path: Path, corpus, read: list[str]) -> None:
    corpus()
    read.clear()
    (tmp_path / "list").write_text("c a")
    assert corpus() == [hash_file(tmp_path / name) for name in ("list", "c", "a")]
    assert read == ["list"]
    (tmp_path / "list").write_text("a b")
    corpus()
    assert read == ["list", "list", "b"]


def test_what_was_just_written_is_not_trusted(tmp_path: Path, corpus, read: list[str], monkeypatch) -> None:
    """Within the clock's step it may change again with the same times."""
    monkeypatch.setattr(hashing, "SETTLE_TIME_NS", 10**12)
    corpus()
    corpus()
    assert read == 2 * ["list", "a", "b", "c"]


def test_a_damaged_or_forbidden_memory_costs_time_alone(tmp_path: Path, corpus, read: list[str], monkeypatch) -> None:
    first = corpus()
    (tmp_path / "memory").write_bytes(b"PAR1 and nothing")
    assert corpus() == first

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hashing, "_write_cache", refused)
    (tmp_path / "memory").unlink()
    assert corpus() == first


def test_what_a_killed_writer_of_the_memory_left_goes_at_the_next_reading(tmp_path: Path, corpus) -> None:
    """Killed after the rename: the memory is whole, so no writer comes that would sweep."""
    hashes = corpus()
    litter = [tmp_path / ".writing-memory.lock", tmp_path / ".writing-99-0123abcd-memory"]
    for path in litter:
        path.touch()
    assert corpus() == hashes
    assert not any(path.exists() for path in litter)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "list", "memory"]
