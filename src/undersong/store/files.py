"""Files that are whole or not there: written beside their name, forced to disk, then renamed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from undersong.store.failpoints import failpoint
from undersong.store.hashes import walk
from undersong.types import UndersongError

WRITING = ".writing-"  # a prefix, because writers such as soundfile and numpy go by a file's suffix
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def replacing(target: Path, mode: int | None = None) -> Iterator[Path]:
    """A temporary name beside `target` to write a file or folder to; it takes `target`'s place when safely on disk.

    If the body raises, `target` is as before.  `mode`: the file's permissions, in force from its first byte.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not by the process's number alone: containers that share a disk all have the same few.
    temporary = target.with_name(f"{WRITING}{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    old = temporary.with_name(f"{temporary.name}.old")
    failpoint("write:begun")
    try:
        if mode is not None:
            temporary.touch(0o600)
            temporary.chmod(mode)  # by `touch` alone the umask would have its say
        with disk_errors(target):
            yield temporary
        failpoint("write:filled")
        sync(temporary)
        failpoint("write:synced")
        if target.is_dir():  # a folder cannot be renamed onto a full one
            target.rename(old)
        temporary.replace(target)
    finally:
        remove(temporary)  # still there if the body failed
        remove(old)
    failpoint("write:renamed")
    sync(target.parent, deep=False)


def write_atomic(path: str | Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file outside the store (a report, a table) so that no reader ever sees half of it.

    A folder of that name is an error: `replacing` would put the file in the place of all that is in it.
    """
    if Path(path).is_dir():
        raise UndersongError(f"{path} is a folder; give the name of a file in it.")
    with mending(Path(path).parent), replacing(Path(path), mode) as temporary:
        temporary.write_bytes(data)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """A full disk met inside is an OSError that names `target`: one from an open file names none, safetensors raises a
    class of its own, and torch's archive writer a RuntimeError that keeps no reason (EIO, then)."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else _errno_in(str(error))
        if number not in FULL or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), str(target)) from error


def _errno_in(text: str) -> int | None:
    if re.search(r"inline_container\.cc.*(unexpected pos|PytorchStreamWriter)", text, re.S):
        return errno.EIO
    found = re.search(r"\(os error (\d+)\)", text)
    return int(found[1]) if found else None


@contextmanager
def mending(root: Path) -> Iterator[None]:
    """Say in one sentence that the disk under `root` is full or closed; any other OSError passes."""
    try:
        yield
    except OSError as error:
        where = Path(os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else root).absolute()
        ours = where.is_relative_to(root.absolute()) or root.absolute().is_relative_to(where)
        if error.errno not in FULL + CLOSED or not ours:
            raise
        mend = "make room, give write access, or choose another folder"
        raise UndersongError(f"cannot write {where}: {error.strerror or error}; {mend}.") from error


def remove(path: Path) -> None:
    """A file, a link (not what it points to) or a whole folder; what is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path, deep: bool = True) -> None:
    """Force a file to disk, or the names in a folder and (`deep`) all that is under it."""
    for item in (*(walk(path) if deep else ()), path):
        if not item.is_symlink():
            descriptor = os.open(item, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
