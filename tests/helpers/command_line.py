"""The command line in this process, which has paid for its imports, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from undersong.cli import main

Undersong = Callable[..., tuple[int, str, str]]  # arguments -> exit code, stdout, stderr


def exit_code(*arguments: object) -> int:
    """The exit code of `undersong ARGUMENTS`; it prints where this process prints."""
    argv = sys.argv
    sys.argv = ["undersong", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = argv
    raise AssertionError("undersong returned without an exit code")


def run_here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `undersong ARGUMENTS` prints and exits with when it is typed in `folder`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = exit_code(*arguments)
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())


def undersong_in(folder: Path) -> Undersong:
    """The command line in a folder."""

    def call(*arguments: object) -> tuple[int, str, str]:
        done = run_here(folder, *map(str, arguments))
        return done.returncode, done.stdout, done.stderr

    return call


def run_apart(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, as a user types it."""
    command = [sys.executable, "-m", "undersong", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800, check=False)
