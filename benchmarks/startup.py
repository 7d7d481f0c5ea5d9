"""What `undersong --help` costs beside an empty interpreter and one that imports Typer: three processes in turn.

In CPU time, which on a machine with nothing else to do is the time that one waits; the least of many rounds.
"""

from __future__ import annotations

import subprocess
import sys
from resource import RUSAGE_CHILDREN, getrusage

ROUNDS = 15
COMMANDS = {
    "python": ["-c", "pass"],
    "typer": ["-c", "import typer.main"],
    "help": ["-m", "undersong", "--help"],
}


def spent() -> float:
    """CPU seconds of all processes that were waited for."""
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    least = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(ROUNDS):
        for name, words in COMMANDS.items():
            before = spent()
            subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
            least[name] = min(least[name], spent() - before)
    python, typer, shown = least.values()
    print(
        f"undersong --help: {shown:.2f} CPU s, {shown / typer:.2f}x of an interpreter that imports Typer alone "
        f"({typer:.2f} s; an empty one {python:.2f} s)"
    )


if __name__ == "__main__":
    main()
