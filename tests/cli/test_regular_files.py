"""Only regular files are opened: pipes, devices and files of the kernel may never end."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from command_line import run_here

from undersong.corpora.decode import load_clips
from undersong.corpora.tables import text_lines
from undersong.regular_files import check_regular_file, is_regular_file
from undersong.store.hashing import cached_file_hashes, hash_file
from undersong.types import Sample, UndersongError

KERNEL_FILE = "/proc/self/mem"  # calls itself regular and empty, and cannot be read


@pytest.fixture
def row_file(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "a", "text": "how are you"}\n')
    return file


def test_what_is_a_regular_file(row_file: Path) -> None:
    pipe, link, empty = (row_file.with_name(name) for name in ("pipe", "link", "empty"))
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    empty.touch()
    for irregular in (pipe, link, "/dev/zero", KERNEL_FILE, "/proc/kmsg", row_file.parent, "nowhere", "a\0b"):
        assert not is_regular_file(irregular)
    for regular in (row_file, empty):
        assert is_regular_file(regular)


def test_a_descriptor_leads_to_its_file(row_file: Path) -> None:
    """`/dev/stdin` stands for what the shell redirects, and `undersong … /dev/stdin < FILE` names a file."""
    with row_file.open("rb") as file:
        check_regular_file(f"/proc/self/fd/{file.fileno()}")
    reader, writer = os.pipe()
    try:
        with pytest.raises(UndersongError, match="is a pipe or a device"):
            check_regular_file(f"/proc/self/fd/{reader}")
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/dev/zero", "is a pipe or a device, which might never end; give a regular file"),
        (KERNEL_FILE, "is a file of the kernel, which might never end; give a regular file"),
        ("/", "is a folder; give a file"),
        ("/nowhere", "There is no file /nowhere; check the path"),
    ],
)
def test_the_message_says_what_it_is(path: str, problem: str) -> None:
    with pytest.raises(UndersongError, match=problem):
        check_regular_file(path)


def test_audio_that_is_no_regular_file_is_left_out(row_file: Path) -> None:
    """Neither the hash of a corpus nor the decoder opens it."""
    hashes = cached_file_hashes(str(row_file), lambda: [KERNEL_FILE, "/proc/kmsg", "/dev/zero"])
    assert hashes == [hash_file(row_file), None, None, None]
    _, failed = load_clips([Sample(path, audio=path) for path in (KERNEL_FILE, "/proc/kmsg", "/dev/zero")])
    assert [item.reason for item in failed][2] == "/dev/zero is no file but a pipe, socket or device"
    assert len(failed) == 3


def test_a_command_leaves_out_such_audio(tmp_path: Path) -> None:
    rows = [
        {"id": f"a{i}", "text": f"how are you {i}", "audio": path} for i, path in enumerate((KERNEL_FILE, "/dev/zero"))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run_here(tmp_path, "tune", "rows.jsonl", "--target-column", "text", "--model", "organism:kimi", "--out", "o")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "a0" in done.stderr


def test_an_error_of_the_disk_names_the_file(row_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class BadDisk(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("undersong.corpora.tables._open_binary", lambda file: io.BufferedReader(BadDisk()))
    with pytest.raises(UndersongError, match=r"rows\.jsonl cannot be read \(Input/output error\)"):
        list(text_lines(row_file))
