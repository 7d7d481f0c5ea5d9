"""One command in a forked process with limits, and what a user would have seen of it."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

MEMORY_LIMIT = 12 << 30  # bytes of address space
SECONDS = 150  # until the alarm ends a command that hangs

# C0 and C1 controls but line feed and tab, and bidirectional overrides and isolates.
RAW_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
FORGED_LINES = re.compile(r"^(::|##\[)", re.M)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Exit code and output of a command; a negative code is the signal that ended it."""

    code: int
    out: str
    err: str

    def fault(self, codes: tuple[int, ...] = (0, 2)) -> str | None:
        """What a user should not have seen, or None. `codes` are the exit codes that the command may have."""
        if "Traceback (most recent call last)" in self.err:
            return f"traceback: {self.err.strip().splitlines()[-1][:300]}"
        if self.code == -signal.SIGALRM:
            return f"no end within {SECONDS} s"
        if self.code not in codes:
            return f"exit code {self.code}: {self.err[-300:]}"
        if found := RAW_CONTROLS.search(self.out + self.err):
            return f"raw control character {found.group()!r}"
        if FORGED_LINES.search(self.out + self.err):
            return "a line that a CI service would obey"
        if self.code == 2:
            lines = [line for line in self.err.splitlines() if line.startswith("undersong: ")]
            if len(lines) != 1 or len(lines[0]) > 3200:
                return f"not one sentence: {self.err[:300]}"
        return None


def run_command(folder: Path, *arguments: str) -> Outcome:
    """Run `undersong ARGUMENTS` in `folder` in a fork of this process, which has paid for the imports."""
    files = [folder / ".stdout", folder / ".stderr"]
    child = os.fork()
    if child == 0:
        _run_in_child(folder, files, arguments)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    out, err = (file.read_bytes().decode("utf-8", "replace") for file in files)
    for file in files:
        file.unlink()
    return Outcome(code, out, err)


def _run_in_child(folder: Path, files: list[Path], arguments: tuple[str, ...]) -> None:
    """Never return: the test runner of the parent must not go on twice."""
    code = 70
    try:
        os.chdir(folder)
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        sys.argv = ["undersong", *arguments]
        from undersong.cli import main

        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:  # noqa: BLE001 - what escaped is the finding, and the parent reads it
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
