"""A full or closed disk is one sentence; what a stage itself gets wrong passes through unchanged."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import undersong
from undersong.store.atomic import atomic_replacement, write_atomic
from undersong.store.draft import Draft
from undersong.store.store import Store
from undersong.types import UndersongError

FULL_DISK = """
import resource, signal, sys
import numpy as np
import torch
from safetensors.numpy import save_file
from undersong.store.store import Store
from undersong.store.atomic import atomic_replacement
from undersong.types import UndersongError
from pathlib import Path

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

def small_archive(path):
    path.mkdir()
    limit(700)
    try:
        torch.save({"b": torch.zeros(10)}, path / "rng_state.pth")
    finally:
        limit(50_000)

limit(50_000)

def make(draft):
    with draft.file("small") as path:
        path.write_bytes(b"s" * 1000)
    with draft.file("big") as path:
        big(path)

big = {
    "bytes": lambda path: path.write_bytes(b"b" * 100_000),
    "tensors": lambda path: save_file({"b": np.zeros(100_000, np.uint8)}, path),
    "archive": lambda path: path.mkdir() or torch.save({"b": torch.zeros(100_000)}, path / "b.pt"),
    "small archive": small_archive,
}[sys.argv[2]]
try:
    with atomic_replacement(Path(sys.argv[1]) / "beside") as path:
        big(path)
except OSError as error:
    print(error)
try:
    Store(sys.argv[1]).get_or_make("stage", 1, {}, {}, make)
except UndersongError as error:
    print(error)
    sys.exit(2)
"""


def write_one(draft: Draft) -> None:
    with draft.file("one") as path:
        path.write_text("one")


def test_processes_of_one_number_do_not_write_into_each_other(tmp_path: Path) -> None:
    """On a disk that containers share every process may have the number 1; the last whole file stays."""
    with atomic_replacement(tmp_path / "file") as one:
        one.write_text("one")
        with atomic_replacement(tmp_path / "file") as other:  # of this very process, so its number is the same
            other.write_text("other")
        assert (tmp_path / "file").read_text() == "other"
    assert (tmp_path / "file").read_text() == "one"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("kind", "number"),
    [("bytes", errno.EFBIG), ("tensors", errno.EFBIG), ("archive", errno.EIO), ("small archive", errno.EIO)],
)
def test_a_file_that_the_disk_will_not_take(tmp_path: Path, kind: str, number: int) -> None:
    """A real refusal by the kernel, by way of the file size limit; safetensors and torch have errors of their own.

    torch's are two: one that fits into its buffer fails without a word on the archive (`iostream error`).
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(undersong.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), kind], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    beside, line = done.stdout.strip().splitlines()
    assert beside == f"[Errno {number}] {os.strerror(number)}: '{tmp_path / 'beside'}'"
    assert "cannot write" in line
    assert "make room" in line
    (partial,) = tmp_path.glob("stage/*.partial")
    assert os.listdir(partial) == ["small"]


def test_no_room_at_the_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UndersongError, match="No space left") as caught:
            Store(tmp_path).get_or_make("stage", 1, {}, {}, write_one)
        with pytest.raises(UndersongError, match="No space left"):
            write_atomic(tmp_path / "report.html", b"x")
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "report.html").exists()
    assert (Store(tmp_path).get_or_make("stage", 1, {}, {}, write_one).path / "one").read_text() == "one"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(UndersongError, match="Permission denied"):
        Store(closed / "deep" / "store").get_or_make("stage", 1, {}, {}, write_one)


@pytest.mark.parametrize("root", ["file", "file/below", "file/below/deep"])
def test_a_file_where_the_store_should_be(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UndersongError, match="cannot write"):
        Store(tmp_path / root).get_or_make("stage", 1, {}, {}, write_one)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a bug"),
        FileNotFoundError(errno.ENOENT, "No such file", "/somewhere/else"),
        PermissionError(errno.EACCES, "Permission denied", "/somewhere/else"),
    ],
)
def test_errors_of_the_stage_itself_pass(tmp_path: Path, error: Exception) -> None:
    def make(draft: Draft) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        Store(tmp_path).get_or_make("stage", 1, {}, {}, make)
    assert caught.value is error
    assert Store(tmp_path).find("stage", 1, {}, {}) is None
    Store(tmp_path).get_or_make("stage", 1, {}, {}, write_one)


@pytest.mark.parametrize("operation", ["open", "mkdir"])
def test_a_folder_that_takes_no_files_is_one_sentence_and_no_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    calls = 0

    def refuse(path: Path, *arguments: object, **options: object) -> None:  # as /proc does
        nonlocal calls
        calls += 1
        assert calls < 10_000
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    monkeypatch.setattr(Path, operation, refuse)
    with pytest.raises(UndersongError, match=r"^cannot write .*page\.html: its folder (takes no new|cannot be)"):
        write_atomic(tmp_path / "page.html", b"page")
