"""What stages have in common: where their files lie, how one is written whole or not at all, figures for the card.

Knows files; knows no stage.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from undersong.store.atomic import write_atomic
from undersong.types import UndersongError

BEGUN = "begun.json"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A JSONL file, there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows).encode())


def read_figures(work: Path) -> dict[str, Any]:
    """Stage -> its figures, of all stages that are done."""
    return {
        file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((work / "figures").glob("*.json"))
    }


def write_figures(work: Path, stage: str, figures: dict[str, Any]) -> None:
    """What a stage has to say of itself, in place of what it said before."""
    path = work / "figures" / f"{stage}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(figures, indent=1, sort_keys=True) + "\n").encode())


def measured(split: str, name: str, seed: int) -> str:
    """The stage that holds a model's figures."""
    return f"measured-{split}-{name.replace(':', '-')}-{seed}"


def same_as_begun(folder: Path, of: dict[str, Any], done: bool, beside: str = "") -> None:
    """Writes down what a stage's folder is made of when it is begun, and holds it against that from then on.

    A folder that is `done` and has no such note is taken as it is.  UndersongError where it was begun of something
    else: it would be taken for what is asked now.  `beside`: a file of the stage that lies elsewhere.
    """
    note, asked = folder / BEGUN, json.loads(json.dumps(of))
    if note.is_file():
        then = json.loads(note.read_text(encoding="utf-8"))
        for name in sorted(then.keys() | asked.keys()):
            if then.get(name) != asked.get(name):
                raise UndersongError(
                    f"{folder} was made with {name} {then.get(name)}, and {asked.get(name)} is asked; take another "
                    f"--work, or remove the folder{f' and {beside}' if beside else ''}."
                )
    elif not done:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(note, (json.dumps(asked, indent=1, sort_keys=True) + "\n").encode())


@contextmanager
def costed(figures: dict[str, Any]) -> Iterator[None]:
    """Adds what the block took to `cpu_seconds` and `wall_seconds`: a killed stage counts what it took in all its runs
    where the figures are read back first."""
    cpu, wall = sum(os.times()[:4]), time.monotonic()  # of this process and of those that it waited for
    yield
    figures["cpu_seconds"] = round(figures.get("cpu_seconds", 0) + sum(os.times()[:4]) - cpu, 1)
    figures["wall_seconds"] = round(figures.get("wall_seconds", 0) + time.monotonic() - wall, 1)
