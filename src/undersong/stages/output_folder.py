"""Output folders of the commands: checks before writing, locks, atomic replacement, and provenance."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from undersong.regular_files import is_regular_file
from undersong.stages.features import MODEL_PACKAGES
from undersong.store.atomic import (
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
from undersong.types import UndersongError


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
