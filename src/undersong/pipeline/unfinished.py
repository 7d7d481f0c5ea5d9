"""A study that was begun and has no results yet: noted in its folder, so that a report can say what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from undersong.models.loading import Loading
from undersong.store import Store, write_atomic
from undersong.study import Study, parse_study
from undersong.types import UndersongError

NOTE = "unfinished.json"


def noting(study: Study, out: Path, store: Path, loading: Loading, say: Callable[[str], None]) -> Callable[[str], None]:
    """`say`, which leaves the note with its first word: by then there is something to go on with."""
    left = False

    def told(line: str) -> None:
        nonlocal left
        if not left and Store(store).begun:
            facts = {"store": str(store.resolve()), "loading": asdict(loading), "study": study.model_dump(mode="json")}
            write_atomic(out / NOTE, json.dumps(facts, indent=1).encode() + b"\n")
            left = True
        say(line)

    return told


def finished(out: Path) -> None:
    """The results are there."""
    (out / NOTE).unlink(missing_ok=True)


def noted(out: Path) -> str | None:
    """The name of the study that was begun in this folder, or None."""
    facts = _facts(out)
    return None if facts is None else str(facts["study"].get("study"))


def missing(out: Path) -> str | None:
    """What the study begun in this folder lacks, in one sentence; None where none was begun.  Loads no model."""
    facts = _facts(out)
    if facts is None:
        return None
    from undersong.pipeline.status import status_of

    again = f"go on with `undersong run` and --out {out}"
    name = facts["study"].get("study")
    try:
        study, loading = parse_study(facts["study"], f"{out / NOTE}"), Loading(**facts["loading"])
        rows = status_of(study, facts["store"], loading).rows
    except (UndersongError, TypeError) as error:  # a corpus that is gone; a note by another version
        return f"{out} is of the unfinished study {name!r}, and what it lacks cannot be told ({error}); {again}."
    lacking = [f"{row.stage} {row.total - row.done} of {row.total}" for row in rows if row.done < row.total]
    said = f"missing are {', '.join(lacking)}" if lacking else "only the results are still to be written"
    return f"{out} is of the unfinished study {name!r}: {said}; {again}."


def _facts(out: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads((out / NOTE).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(facts, dict) or not {"store", "loading", "study"} <= facts.keys():
        return None
    return facts if isinstance(facts["study"], dict) else None
