"""Locks between processes: by `flock`, so the operating system releases them when their holder dies."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger("undersong.store")

NO_LOCKS_ERRNOS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # of a file system without locks
MAX_MISSING = 100  # attempts to open a file in a folder that exists before each


class LockHeldError(Exception):
    """Another holder has the lock."""


@contextmanager
def persistent_lock(path: Path, target: Path) -> Iterator[BinaryIO]:
    """Wait for the lock of the process that makes `target`, and hold it.

    Its file stays and may hold data. Its holder may remove it; who waits for it then locks a new one.
    """
    try:
        file = _open_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.warning("waiting for the process that is making %s", target)
        file = _open_locked(path, fcntl.LOCK_EX)
    with file:
        yield file


@contextmanager
def temporary_lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock whose file is removed at the end, with the parent folders that were created for it.

    Args:
        path: The lock file.
        wait: Wait for another holder.

    Raises:
        LockHeldError: There is another holder, and `wait` is False.
    """
    created = [folder for folder in path.parents if not folder.exists()]
    try:
        file = _open_locked(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockHeldError(str(path)) from None
    try:
        with file:
            try:
                yield
            finally:
                path.unlink(missing_ok=True)  # while it is held: who waits for it sees that it has no name any more
    finally:
        with suppress(OSError):  # the first that is not empty ends it
            for folder in created:
                folder.rmdir()


@contextmanager
def writers_lock(path: Path, sweep: Callable[[], None]) -> Iterator[None]:
    """Share a lock with the other writers of a file, and call `sweep` first if there are none.

    On a file system without locks nothing is swept. The last writer removes the lock file.
    """
    try:
        file = _open_shared(path, sweep)
    except OSError as error:
        if error.errno not in NO_LOCKS_ERRNOS:
            raise
        path.unlink(missing_ok=True)
        yield
        return
    with file:
        try:
            yield
        finally:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _has_name(file, path):  # else another writer removed it, and the name may be a later lock's
                    path.unlink()


def _open_shared(path: Path, sweep: Callable[[], None]) -> BinaryIO:
    while True:
        with ExitStack() as stack:  # closes the file, unless it is returned
            try:
                file = stack.enter_context(_open_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                return _open_locked(path, fcntl.LOCK_SH)  # waits for a sweep at most
            sweep()
            fcntl.flock(file, fcntl.LOCK_SH)  # not in one step, so another may have removed the file in between
            if _has_name(file, path):
                stack.pop_all()
                return file


def _open_locked(path: Path, operation: int) -> BinaryIO:
    """Open and lock a file; once more if its last holder removed it meanwhile, because that lock has no name."""
    missing = 0
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # closes the file, unless it is returned
            try:
                file = stack.enter_context(path.open("a+b", buffering=0))
            except FileNotFoundError:  # the folder was removed in between, or takes no files, as /proc
                missing += 1
                if missing == MAX_MISSING:
                    raise PermissionError(errno.EACCES, "its folder takes no new files", str(path)) from None
                continue
            fcntl.flock(file, operation)
            if _has_name(file, path):
                stack.pop_all()
                return file


def _has_name(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
