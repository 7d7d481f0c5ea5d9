"""A study that was begun and has no results yet: noted in its folder, so that a report can say what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from undersong.models.load_options import Loading
from undersong.store import Store, write_atomic
from undersong.study import Study, parse_study
from undersong.types import UndersongError

UNFINISHED_FILE = "unfinished.json"


def mark_unfinished(
    study: Study, out: Path, store: Path, loading: Loading, say: Callable[[str], None]
) -> Callable[[str], None]:
    """`say`, which leaves the note with its first word: by then there is something to go on with."""
    is_marked = False

    def say_and_mark(line: str) -> None:
        nonlocal is_marked
        if not is_marked and Store(store).is_initialized:
            note = {"store": str(store.resolve()), "loading": asdict(loading), "study": study.model_dump(mode="json")}
            write_atomic(out / UNFINISHED_FILE, json.dumps(note, indent=1).encode() + b"\n")
            is_marked = True
        say(line)

    return say_and_mark


def clear_unfinished(out: Path) -> None:
    """The results are there."""
    (out / UNFINISHED_FILE).unlink(missing_ok=True)


def unfinished_study(out: Path) -> str | None:
    """The name of the study that was begun in this folder, or None."""
    note = _read_note(out)
    return None if note is None else str(note["study"].get("study"))


def describe_unfinished(out: Path) -> str | None:
    """What the study begun in this folder lacks, in one sentence; None where none was begun.  Loads no model."""
    note = _read_note(out)
    if note is None:
        return None
    from undersong.pipeline.status import study_status

    advice = f"go on with `undersong run` and --out {out}"
    name = note["study"].get("study")
    try:
        study, loading = parse_study(note["study"], f"{out / UNFINISHED_FILE}"), Loading(**note["loading"])
        rows = study_status(study, note["store"], loading).rows
    except (UndersongError, TypeError) as error:  # a corpus that is gone; a note by another version
        return f"{out} is of the unfinished study {name!r}, and what it lacks cannot be told ({error}); {advice}."
    missing_stages = [f"{row.stage} {row.total - row.done} of {row.total}" for row in rows if row.done < row.total]
    summary = (
        f"missing are {', '.join(missing_stages)}" if missing_stages else "only the results are still to be written"
    )
    return f"{out} is of the unfinished study {name!r}: {summary}; {advice}."


def _read_note(out: Path) -> dict[str, Any] | None:
    try:
        note = json.loads((out / UNFINISHED_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(note, dict) or not {"store", "loading", "study"} <= note.keys():
        return None
    return note if isinstance(note["study"], dict) else None
