"""The command line in this process, which has paid for its imports, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

from undersong.cli import main


def run_here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `undersong ARGUMENTS` prints and exits with when it is typed in `folder`."""
    out, err, code, argv = io.StringIO(), io.StringIO(), 0, sys.argv
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = ["undersong", *arguments]
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            sys.argv = argv
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())


def run_apart(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, as a user types it."""
    command = [sys.executable, "-m", "undersong", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800, check=False)
