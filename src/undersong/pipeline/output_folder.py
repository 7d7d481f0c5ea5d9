"""Output folders of the commands: checks before writing, atomic replacement, provenance, and the note about an
unfinished study."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from undersong.models.load_options import LoadOptions
from undersong.regular_files import is_regular_file
from undersong.stages.context import FILE_HASHES_FOLDER
from undersong.stages.features import MODEL_PACKAGES
from undersong.store.atomic import (
    TEMPORARY_PREFIX,
    atomic_replacement,
    remove_path,
    report_disk_errors,
    sweep_leftovers,
    sweep_removed,
    write_atomic,
)
from undersong.store.hashing import canonical_json
from undersong.store.locks import NO_LOCKS_ERRNOS, LockHeldError, temporary_lock
from undersong.store.provenance import PROVENANCE, file_records
from undersong.store.store import Store, environment_facts
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
    from undersong.pipeline.planning.plan import study_status

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
def locked_output_folder(out: Path) -> Iterator[Path]:
    """Hold the lock on an output folder while a command works on it.

    First removes the temporary files of killed commands, and at the end, if all went well, what they kept next to the
    folder in order to continue: nobody can continue into a folder that holds something else now.

    Raises:
        UndersongError: Another process is writing to the folder, or its parent folder cannot be written.
    """
    place = out.absolute()
    with ExitStack() as stack:
        with report_disk_errors(place.parent):
            try:
                stack.enter_context(temporary_lock(place.with_name(f".{place.name}.lock")))
            except LockHeldError:
                raise UndersongError(
                    f"Another process is writing to {out}; wait until it has finished, or name another folder with "
                    "--out."
                ) from None
            except OSError as error:
                if error.errno not in NO_LOCKS_ERRNOS:
                    raise
                raise UndersongError(
                    f"{out} is on a file system without locks ({error.strerror}); name a folder on another with --out."
                ) from error
        unfinished_work = rf"{re.escape(place.name)}(\.[0-9a-f]{{8}}\.partial|\.[0-9a-f]{{12}}\.(state|kept))"
        sweep_leftovers(place)
        with report_disk_errors(place.parent):
            sweep_removed(place.parent, unfinished_work)
        yield out
        for path in list(place.parent.iterdir()):
            if re.fullmatch(unfinished_work, path.name):
                with suppress(OSError):  # the command has succeeded
                    remove_path(path)


@contextmanager
def locked_study_folder(out: Path) -> Iterator[None]:
    """Wait for another run that is writing its results to this folder, and hold the lock meanwhile.

    Runs of one study may share a store and a folder; only the writing of the results must not mix.
    """
    with ExitStack() as stack:
        with report_disk_errors(out):
            stack.enter_context(temporary_lock(out / f"{TEMPORARY_PREFIX}results.lock", wait=True))
        yield


def check_output_folder(out: Path, stage: str) -> Path:
    """Check that a folder can be written: it is new, empty, or was written by the same verb.

    Raises:
        UndersongError: The folder holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return out
    if _read_stage(out) != stage:
        raise UndersongError(f"{out} exists and was not written by {stage}; name a new folder with --out.")
    return out


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


INPUT_LABELS = {"ids": "list of samples"}


def check_same_options(out: Path, stage: str, config: Mapping[str, Any]) -> None:
    """Check, before anything is read or loaded, that a folder can be written, and was made with the same options.

    Args:
        out: The folder.
        stage: Name of the verb.
        config: Config of the new output.

    Raises:
        UndersongError: The folder holds something else, or was made with other options.
    """
    check_output_folder(out, stage)
    provenance = _read_provenance(out)
    if provenance:
        _check_equal(out, stage, provenance.get("config", {}), config)


def check_same_provenance(out: Path, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Check that a folder was made from the same config and inputs, so that long work is not replaced by mistake.

    Args:
        out: The folder.
        stage: Name of the verb.
        config: Config of the new output.
        inputs: Hashes of its inputs.

    Raises:
        UndersongError: The folder was made from something else.
    """
    if provenance := _read_provenance(out):
        previous = {**provenance.get("config", {}), **provenance.get("inputs", {})}
        _check_equal(out, stage, previous, {**config, **inputs})


def _check_equal(out: Path, stage: str, previous: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    current = json.loads(canonical_json(dict(new)))
    differing = sorted(name for name in previous.keys() | current.keys() if previous.get(name) != current.get(name))
    if differing:
        name = INPUT_LABELS.get(differing[0], differing[0])
        raise UndersongError(
            f"{out} holds what {stage} made with another {name}; name a new folder with --out, or remove it."
        )


def _read_stage(folder: Path) -> str | None:
    return _read_provenance(folder).get("stage")


def _read_provenance(folder: Path) -> dict[str, Any]:
    """Provenance that a verb wrote to the folder; empty if none did."""
    if not is_regular_file(folder / PROVENANCE):
        return {}
    try:
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return provenance if isinstance(provenance, dict) else {}


@contextmanager
def report_kept_work(kept_work: Callable[[], str | None]) -> Iterator[None]:
    """On an interruption, note on the exception what is kept, for the line that the command ends with.

    Args:
        kept_work: Looks at the disk, and returns the clause on what the same command would go on from, or None.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if clause := kept_work():
            error.add_note(clause)
        raise


def report_kept_artifacts(*stores: Path) -> AbstractContextManager[None]:
    """`report_kept_work` for what a command finished in a store that the user named."""
    clause = "what is finished is kept in the store, and the same command goes on from it"
    return report_kept_work(lambda: clause if any(Store(root).has_artifacts for root in stores) else None)


@contextmanager
def partial_store(out: Path, key: Any, kept: Sequence[str], work: str) -> Iterator[Store]:
    """Yield a store next to `out` for one command that holds the folder's lock, and delete it when it succeeds.

    After a failure the store stays for the next attempt if it holds a file that is expensive to make again.

    Args:
        out: Output folder of the command.
        key: JSON-able options of the command, so that it does not continue what one with other options began.
        kept: Glob patterns of the expensive files.
        work: What these files hold, for the line after an interruption.
    """
    digest = hashlib.sha256(canonical_json(key).encode()).hexdigest()
    root = out.with_name(f"{out.name}.{digest[:8]}.partial")
    created = [folder for folder in root.parents if not folder.exists()]
    finished = False

    def holds_work() -> bool:
        return any(any(root.glob(pattern)) for pattern in kept)

    clause = f"what is finished of the {work} is kept beside --out, and the same command goes on from it"
    with report_kept_work(lambda: clause if holds_work() else None):
        try:
            yield Store(root)
            finished = True
        finally:
            if finished or not holds_work():
                with suppress(OSError):  # the result of the command is what counts
                    remove_path(root)
                for folder in created if not finished else ():
                    if folder.is_dir() and not any(folder.iterdir()):
                        folder.rmdir()


@contextmanager
def atomic_folder(out: Path, stage: str) -> Iterator[Path]:
    """Yield a temporary folder that gets the name `out` when it is complete."""
    check_output_folder(out, stage)  # checked again, because others may have written there during training
    with atomic_replacement(out) as folder:
        folder.mkdir()
        yield folder


def write_provenance(
    folder: Path, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], notes: Mapping[str, Any]
) -> None:
    """Write how a folder was made and the hashes of its files, in the format of the store's provenance.

    Args:
        folder: The folder, which holds all its other files.
        stage: Name of the verb.
        config: Config of the output.
        inputs: Hashes of its inputs.
        notes: Further facts.
    """
    provenance = {"stage": stage, "config": dict(config), "inputs": dict(inputs), "notes": dict(notes)}
    provenance |= {"files": file_records(folder)}  # readers of the folder check them
    provenance |= environment_facts(MODEL_PACKAGES)
    write_atomic(folder / PROVENANCE, json.dumps(provenance, indent=1, sort_keys=True).encode() + b"\n")
