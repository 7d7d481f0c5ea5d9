"""The output folder of a study: what it may hold before, its lock, and the note about an unfinished study."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from undersong.models.load_options import LoadOptions
from undersong.regular_files import is_regular_file
from undersong.stages.context import FILE_HASHES_FOLDER
from undersong.store.atomic import TEMPORARY_PREFIX, report_disk_errors, write_atomic
from undersong.store.locks import temporary_lock
from undersong.store.store import Store
from undersong.study.load import parse_study
from undersong.study.schema import Study
from undersong.types import UndersongError

UNFINISHED_FILE = "unfinished.json"
RUN_VERB = "run"
REGISTRATION_FILE = "registration.json"


def mark_unfinished(
    study: Study,
    out: Path,
    store: Path,
    loading: LoadOptions,
    say: Callable[[str], None],
    verb: str = RUN_VERB,
) -> Callable[[str], None]:
    """Wrap `say` so that its first line also writes the unfinished-study marker to `out`.

    Args:
        study: The study.
        out: The output folder.
        store: The store.
        loading: Loading options.
        say: Receives progress lines.
        verb: The command that goes on with the study.
    """
    is_marked = False

    def say_and_mark(line: str) -> None:
        nonlocal is_marked
        if not is_marked and Store(store).is_initialized:
            note = {"store": str(store.resolve()), "loading": asdict(loading), "study": study.model_dump(mode="json")}
            note |= {"verb": verb}
            write_atomic(out / UNFINISHED_FILE, json.dumps(note, indent=1).encode() + b"\n")
            is_marked = True
        say(line)

    if (watch := getattr(say, "watch", None)) is not None:  # of a display that draws bars
        say_and_mark.watch = watch  # type: ignore[attr-defined]
    return say_and_mark


def clear_unfinished(out: Path) -> None:
    """Remove the unfinished-study marker from `out`."""
    (out / UNFINISHED_FILE).unlink(missing_ok=True)


def unfinished_study(out: Path) -> str | None:
    """Name of the unfinished study in this folder, or None."""
    note = _read_note(out)
    return None if note is None else str(note["study"].get("study"))


def describe_unfinished(out: Path) -> str | None:
    """Describe in one sentence what an unfinished study still lacks; None if there is none. Loads no model."""
    note = _read_note(out)
    if note is None:
        return None
    from undersong.study.planning.plan import study_status

    verb = note.get("verb", RUN_VERB)  # an older marker names none
    advice = f"continue with `undersong {verb}` and --out {out}"
    name = note["study"].get("study")
    try:
        study, loading = parse_study(note["study"], f"{out / UNFINISHED_FILE}"), LoadOptions(**note["loading"])
        rows = study_status(study, note["store"], loading).rows
    except (UndersongError, TypeError) as error:  # a corpus is missing, or another version wrote the marker
        return f"{out} is of the unfinished study {name!r}, and what it lacks is unknown ({error}); {advice}."
    missing_stages = [f"{row.stage} {row.total - row.done} of {row.total}" for row in rows if row.done < row.total]
    summary = (
        f"missing are {', '.join(missing_stages)}" if missing_stages else "only the results are still to be written"
    )
    return f"{out} is of the unfinished study {name!r}: {summary}; {advice}."


def _read_note(out: Path) -> dict[str, Any] | None:
    if not is_regular_file(out / UNFINISHED_FILE):
        return None
    try:
        note = json.loads((out / UNFINISHED_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(note, dict) or not {"store", "loading", "study"} <= note.keys():
        return None
    return note if isinstance(note["study"], dict) else None


RESULTS_FILE = "results.json"


@contextmanager
def locked_study_folder(out: Path) -> Iterator[None]:
    """Wait for another run that is writing its results to this folder, and hold the lock meanwhile.

    Runs of one study may share a store and a folder; only the writing of the results must not mix.
    """
    with ExitStack() as stack:
        with report_disk_errors(out):
            stack.enter_context(temporary_lock(out / f"{TEMPORARY_PREFIX}results.lock", wait=True))
        yield


def check_study_folder(out: Path, study: str, store: Path) -> None:
    """Check that a folder can take a study's results: it is new, empty, or holds this study's results or unfinished
    run.

    Raises:
        UndersongError: The folder holds something else.
    """
    existing = [entry for entry in out.iterdir() if not entry.name.startswith(TEMPORARY_PREFIX)] if out.is_dir() else []
    existing = [entry for entry in existing if entry.name != REGISTRATION_FILE]  # of `plan --register`, before any run
    existing = [entry for entry in existing if entry != _inner_store_folder(out, store) or not _is_store_begun(entry)]
    if out.exists() and not out.is_dir():
        raise UndersongError(f"{out} is a file; give a folder for --out.")
    if (out / RESULTS_FILE).exists():
        if (other_study := _study_name(out / RESULTS_FILE)) != study:
            owner = "of no study" if other_study is None else f"of the study {other_study!r}"
            raise UndersongError(f"{out} holds results {owner}, not of {study!r}; name another folder with --out.")
        return
    inner_stores = [root for root in (store, out / "store") if root.resolve().is_relative_to(out.resolve())]
    if existing and unfinished_study(out) != study and not any(Store(root).is_initialized for root in inner_stores):
        raise UndersongError(f"{out} holds {existing[0].name} and no results of a study; name a new folder with --out.")


def _inner_store_folder(out: Path, store: Path) -> Path:
    """The folder directly in `out` in which the store is or would be by default."""
    inner = store if store.resolve().is_relative_to(out.resolve()) else out / "store"
    parts = inner.resolve().relative_to(out.resolve()).parts
    return out / (parts[0] if parts else "store")


def _is_store_begun(folder: Path) -> bool:
    """Whether a folder is a store that another run has just begun: it has no files but those of a store's start."""
    return folder.is_dir() and all(
        path.is_dir() or path.parent.name == FILE_HASHES_FOLDER or path.name.endswith(".journal")
        for path in folder.rglob("*")
    )


def _study_name(results: Path) -> str | None:
    """Name of the study that results belong to."""
    if not is_regular_file(results):
        return None
    try:
        return str(json.loads(results.read_bytes())["study"]["name"])
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
