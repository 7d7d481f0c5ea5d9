"""Pages of docs/how-to: what they say can be typed, and what it prints."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def page(name: str) -> str:
    return (HOW_TO / f"{name}.md").read_text()


def commands(text: str) -> list[str]:
    """The lines of its `console` blocks."""
    return [line for block in re.findall(r"```console\n(.*?)```", text, re.S) for line in block.splitlines()]


def run(lines: list[str], folder: Path) -> str:
    """Every line in turn, in `folder`, as a user types it; what the last one printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in lines:
        done = subprocess.run(
            shlex.split(line), cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return done.stdout
