"""Atomic, durable writes (write next to the target, fsync, rename), removal that leaves no half of a folder, messages
for disk errors, and failpoints by which tests kill a process.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from safetensors import SafetensorError

from undersong.store.locks import writers_lock
from undersong.types import UndersongError

FAILPOINTS = (
    *("lock:taken", "draft:swept", "draft:made", "journal:before", "journal:written"),
    *("write:begun", "write:filled", "write:synced", "write:renamed"),
    *("publish:before", "publish:ready", "publish:renamed"),
)
_hits: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Exit as by SIGKILL if UNDERSONG_FAILPOINT is `name` or `name:n` and this is its n-th (default: first) call."""
    if not (requested := os.environ.get("UNDERSONG_FAILPOINT")):
        return
    point, n = re.sub(r":\d+$", "", requested), re.search(r":(\d+)$", requested)
    if point not in FAILPOINTS:
        raise UndersongError(
            f"UNDERSONG_FAILPOINT={requested} names no failpoint; choose from {', '.join(FAILPOINTS)}."
        )
    _hits[name] += 1
    if name == point and _hits[name] == (int(n[1]) if n else 1):
        os._exit(137)


OLD_SUFFIX = ".old"
TEMPORARY_PREFIX = ".writing-"  # a prefix, because writers such as soundfile and numpy use a file's suffix
REMOVED_SUFFIX = ".removed"  # of a hidden folder that is on its way out
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
NO_ACCESS_ERRNOS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def atomic_replacement(target: Path, mode: int | None = None, *, sweep: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `target` for a file or folder, which replaces `target` once it is safely on disk.

    If the body raises, `target` stays unchanged.

    Args:
        target: The file or folder.
        mode: Permissions of the file, from its first byte on.
        sweep: Remove what killed writers of `target` left, which takes a lock; False where nobody else can write, and
            killed writers are swept otherwise.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # as /proc reports a folder that cannot be made
        raise PermissionError(errno.EACCES, "its folder cannot be made", str(target)) from error
    with _sweep_lock(target) if sweep else nullcontext():
        temporary = _temporary_path(target)
        failpoint("write:begun")
        try:
            if mode is not None:
                temporary.touch(0o600)
                temporary.chmod(mode)  # `touch` alone would apply the umask
            with disk_error_context(target):
                yield temporary
            failpoint("write:filled")
            fsync_path(temporary)
            failpoint("write:synced")
            _replace(temporary, target)
        finally:
            remove_path(temporary)  # still there if the body failed
        failpoint("write:renamed")
        fsync_path(target.parent, deep=False)


def move_into_place(source: Path, target: Path) -> None:
    """Replace `target` by a file or folder on the same disk, once this is safely there."""
    with report_disk_errors(target.parent), _sweep_lock(target):
        fsync_path(source)
        _replace(source, target)
        fsync_path(target.parent, deep=False)


def sweep_leftovers(target: Path) -> None:
    """Remove what killed writers of `target` left next to it; a folder that one had moved aside is put back.

    Does nothing while another process writes `target`.
    """
    if target.parent.is_dir():
        with report_disk_errors(target.parent), _sweep_lock(target):
            pass


def sweep_after_kill(target: Path) -> None:
    """Sweep as `sweep_leftovers`, for readers of `target`: only if a writer was killed and left its lock file."""
    if _lock_path(target).exists():
        with _sweep_lock(target):
            pass


def _lock_path(target: Path) -> Path:
    return target.with_name(f"{TEMPORARY_PREFIX}{target.name}.lock")


def _temporary_path(target: Path) -> Path:
    # Not by the process id alone: containers that share a disk all have the same few.
    return target.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{target.name}")


def _replace(source: Path, target: Path) -> None:
    if not target.is_dir():
        source.replace(target)
        return
    old = _temporary_path(target)  # a folder cannot be renamed onto a full one
    old = old.with_name(f"{old.name}{OLD_SUFFIX}")
    target.rename(old)
    try:
        source.replace(target)
    except OSError:
        old.rename(target)
        raise
    remove_path(old)


@contextmanager
def _sweep_lock(target: Path) -> Iterator[None]:
    def sweep() -> None:
        pattern = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}\d+-[0-9a-f]{{8}}-{re.escape(target.name)}({OLD_SUFFIX})?")
        for path in target.parent.iterdir():
            if match := pattern.fullmatch(path.name):
                if match[1] and not target.exists():  # killed between two renames
                    path.rename(target)
                else:
                    remove_path(path)

    with ExitStack() as stack:
        try:
            stack.enter_context(writers_lock(_lock_path(target), sweep))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error  # no user knows the lock's name
        yield


def write_atomic(path: str | Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file outside the store (a report, a table) so that no reader ever sees a part of it.

    Raises UndersongError if `path` is a folder, which `atomic_replacement` would replace with all its content.
    """
    if Path(path).is_dir():
        raise UndersongError(f"{path} is a folder; give the name of a file in it.")
    with report_disk_errors(Path(path).parent), atomic_replacement(Path(path), mode) as temporary:
        temporary.write_bytes(data)


@contextmanager
def disk_error_context(target: Path) -> Iterator[None]:
    """Turn disk errors inside the context into an OSError that names `target`.

    An error of an open file names no path, safetensors has its own class, and torch's archive writer raises a
    RuntimeError without a reason (reported as EIO).
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else _errno_in(str(error))
        if number not in DISK_FULL_ERRNOS or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), str(target)) from error


def _errno_in(text: str) -> int | None:
    if re.search(r"inline_container\.cc.*unexpected pos|PytorchStreamWriter failed|iostream error", text, re.S):
        return errno.EIO
    match = re.search(r"\(os error (\d+)\)", text)
    return int(match[1]) if match else None


@contextmanager
def report_disk_errors(root: Path) -> Iterator[None]:
    """Raise UndersongError if the disk under `root` is full or cannot be written; other OSErrors pass."""
    try:
        yield
    except OSError as error:
        failed_path = Path(os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else root).absolute()
        is_inside = failed_path.is_relative_to(root.absolute()) or root.absolute().is_relative_to(failed_path)
        if error.errno not in DISK_FULL_ERRNOS + NO_ACCESS_ERRNOS or not is_inside:
            raise
        advice = "make room, give write access, or choose another folder"
        raise UndersongError(f"cannot write {failed_path}: {error.strerror or error}; {advice}.") from error


def remove_path(path: Path) -> None:
    """Remove a file, a link (not its target) or a whole folder; a missing path is not an error.

    A folder vanishes under its name at once, so that a kill leaves no half of it. `sweep_removed` removes the rest.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    doomed = path
    if not path.name.startswith(TEMPORARY_PREFIX) and not path.name.endswith(REMOVED_SUFFIX):
        doomed = path.with_name(f".{path.name}.{secrets.token_hex(4)}{REMOVED_SUFFIX}")
    with suppress(FileNotFoundError):  # another process removes it too
        try:
            path.rename(doomed)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            doomed = path
        shutil.rmtree(doomed)


def sweep_removed(parent: Path, name: str = ".*") -> None:
    """Remove what kills left of folders that `remove_path` was removing.

    Args:
        parent: The folder that they were in; it may be missing.
        name: Pattern of their names.
    """
    pattern = re.compile(rf"\.({name})(\.[0-9a-f]{{8}})?{re.escape(REMOVED_SUFFIX)}")
    for path in list(parent.iterdir()) if parent.is_dir() else ():
        if pattern.fullmatch(path.name):
            remove_path(path)


def fsync_path(path: Path, deep: bool = True) -> None:
    """Force a file to disk, or the names in a folder and (`deep`) everything below it."""
    for item in (*(walk_folder(path) if deep else ()), path):
        if not item.is_symlink():
            descriptor = os.open(item, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def walk_folder(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder, deepest first; links are not followed."""
    for parent, folders, files in os.walk(folder, topdown=False):
        yield from (Path(parent, name) for name in (*files, *folders))
