"""The check that every path from a user passes before it is opened: pipes, devices and files of the kernel may never
end, and opening some of them never returns.

Imports no other module of the package but `types`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from undersong.types import UndersongError

KERNEL_FOLDERS = ("/proc", "/sys")


def is_regular_file(path: str | Path) -> bool:
    """True for a file on a disk, links followed; False for anything else, and for a path that leads nowhere."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return False
    return stat.S_ISREG(status.st_mode) and not _is_of_kernel(path, status)


def check_regular_file(path: str | Path) -> None:
    """Check before a file is opened that it is one.

    Raises:
        UndersongError: There is no file, or it is a folder, a pipe, a socket, a device, or a file of the kernel.
    """
    if is_regular_file(path):
        return
    if Path(path).is_dir():
        raise UndersongError(f"{path} is a folder; give a file.")
    if Path(path).is_file():
        raise UndersongError(f"{path} is a file of the kernel, which might never end; give a regular file.")
    if Path(path).exists():
        raise UndersongError(f"{path} is a pipe or a device, which might never end; give a regular file.")
    raise UndersongError(f"There is no file {path}; check the path.")


def _is_of_kernel(path: str | Path, status: os.stat_result) -> bool:
    """True below /proc and /sys, whose files call themselves regular. They take no blocks, and few others do not."""
    if status.st_blocks:
        return False
    real_path = os.path.realpath(path)  # leads out of /proc/self/fd, /proc/self/cwd and /proc/self/root
    return any(real_path.startswith(f"{folder}/") for folder in KERNEL_FOLDERS)
