"""Locks of output folders and of writers: whose temporary files are swept, and whose are not."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

import undersong
from undersong.store.atomic import atomic_replacement, move_into_place, sweep_leftovers, write_atomic
from undersong.store.locks import LockHeldError, persistent_lock, temporary_lock

DEAD = ".writing-4711-0123abcd-"


def test_what_a_dead_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    (tmp_path / f"{DEAD}report.html").write_text("half")
    (tmp_path / f"{DEAD}other.html").write_text("of another file")
    with atomic_replacement(target) as living:
        living.write_text("living")
        assert not (tmp_path / f"{DEAD}report.html").exists()
        (tmp_path / f"{DEAD}report.html").write_text("of a writer that dies meanwhile")
        write_atomic(target, b"second")
        sweep_leftovers(target)
        assert living.exists()
    assert target.read_text() == "living"
    sweep_leftovers(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{DEAD}other.html", "report.html"]


def test_a_writer_in_another_process_keeps_its_file_and_loses_it_when_it_dies(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from undersong.store.atomic import atomic_replacement\n"
        "with atomic_replacement(Path(sys.argv[1])) as path:\n"
        "    path.write_text('half'); print(path, flush=True); sys.stdin.readline()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(undersong.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        temporary = Path(writer.stdout.readline().strip())
        sweep_leftovers(tmp_path / "file")
        write_atomic(tmp_path / "file", b"mine")
        assert temporary.read_text() == "half"
        writer.kill()
    sweep_leftovers(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_who_waits_for_a_journal_that_its_holder_removes_locks_a_new_one(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from undersong.store.locks import persistent_lock\n"
        "print('waits', flush=True)\n"
        "with persistent_lock(Path(sys.argv[1]), Path('a')) as file:\n"
        "    import os; print(os.path.samestat(os.fstat(file.fileno()), os.stat(sys.argv[1])), flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(undersong.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path / "journal")]
    with persistent_lock(tmp_path / "journal", tmp_path / "a"):
        waiting = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert waiting.stderr is not None
        assert "waiting for the process that is making a" in waiting.stderr.readline()
        (tmp_path / "journal").unlink()
    assert waiting.communicate()[0].split() == ["waits", "True"]


def test_a_folder_that_a_killed_writer_had_moved_aside_is_put_back(tmp_path: Path) -> None:
    for name in (f"{DEAD}out", f"{DEAD}out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    sweep_leftovers(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out" / "name").read_text() == f"{DEAD}out.old"
    sweep_leftovers(tmp_path / "nowhere" / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_cannot_take_the_name_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError):
        move_into_place(tmp_path / "gone", tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_a_temporary_lock_has_one_holder_and_no_file_afterwards(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / ".out.lock"
    with temporary_lock(lock):
        with pytest.raises(LockHeldError), temporary_lock(lock):
            raise AssertionError("two holders")
        assert lock.exists()
    assert not lock.parent.exists()
    lock.parent.mkdir()
    lock.touch()  # of a holder that died
    with temporary_lock(lock):
        pass
    assert os.listdir(lock.parent) == []


def test_a_lock_that_was_removed_while_it_was_waited_for_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last holder removed the file between our opening and our locking of it."""
    lock, flock, calls = tmp_path / "lock", fcntl.flock, []

    def late(file: object, operation: int) -> None:
        if not calls:
            lock.unlink()
        calls.append(operation)
        flock(file, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", late)
    with temporary_lock(lock):
        assert lock.exists()
        assert len(calls) == 2
        with pytest.raises(LockHeldError), temporary_lock(lock):
            raise AssertionError("two holders")


def test_without_locks_a_file_is_written_and_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / f"{DEAD}file").write_text("perhaps of a living one")
    write_atomic(tmp_path / "file", b"whole")
    assert sorted(os.listdir(tmp_path)) == [f"{DEAD}file", "file"]
