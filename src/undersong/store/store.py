"""Artifacts and the store: cache keys, look-up, integrity checks, locking, and the state of an unfinished artifact."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from undersong import __version__
from undersong.store.atomic import failpoint, report_disk_errors
from undersong.store.draft import PROVENANCE, Draft
from undersong.store.hashing import canonical_json, hash_file, to_jsonable
from undersong.types import UndersongError

logger = logging.getLogger("undersong.store")


def repair_hint(file: Path) -> str:
    """What to do about a damaged file: one inside an artifact is made again when that is deleted."""
    folder = next((parent for parent in file.parents if (parent / PROVENANCE).is_file()), None)
    return "write it again" if folder is None else f"delete {folder}, and it is made anew"


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a stage made: `path` is a complete folder, `hash` says what it was made from."""

    stage: str
    hash: str
    path: Path

    @property
    def partial(self) -> Path:
        """The folder that it grows in."""
        return self.path.with_name(f"{self.path.name}.partial")

    @property
    def journal(self) -> Path:
        """The lock of who makes it, which vouches for finished shards."""
        return self.path.with_name(f".{self.path.name}.journal")

    def provenance(self) -> dict[str, Any]:
        """How it was made: config, inputs, versions, notes, times."""
        try:
            return dict(json.loads((self.path / PROVENANCE).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise UndersongError(f"{self.path} has a damaged {PROVENANCE}; delete the folder to remake it.") from error

    def verify(self) -> Artifact:
        """The same, once every file in it has the bytes that were written; asked of what is read to compute with."""
        _check_files(self)
        return self


@cache  # once a process
def _check_files(artifact: Artifact) -> None:
    for name, (size, digest) in artifact.provenance().get("files", {}).items():
        _check_size(artifact.path, name, size)
        if hash_file(artifact.path / name) != digest:
            raise _damaged(artifact.path, f"{name} is not what was written")


def _check_size(folder: Path, name: str, size: int) -> None:
    try:
        actual_size = (folder / name).stat().st_size
    except OSError:
        raise _damaged(folder, f"{name} is gone") from None
    if actual_size != size:
        raise _damaged(folder, f"{name} has {actual_size} bytes where {size} were written")


def _damaged(folder: Path, reason: str) -> UndersongError:
    return UndersongError(f"{folder} is damaged ({reason}); delete that folder, and it is made anew.")


Inputs: TypeAlias = Mapping[str, Artifact | str]


class Store:
    """Artifacts under one root folder.  Same question again = a look-up."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @property
    def is_initialized(self) -> bool:
        """Whether a store is there: a stage was begun in it."""
        return any(self.root.glob("*/.*.journal"))

    def key(self, stage: str, version: int | str, config: Any, inputs: Inputs) -> str:
        """SHA-256 of the question.  `config`: JSON-able; it holds whatever the result depends on, seeds included."""
        return hashlib.sha256(canonical_json(_key_content(stage, version, config, inputs)).encode()).hexdigest()

    def locate(self, stage: str, version: int | str, config: Any, inputs: Inputs) -> Artifact:
        """The artifact as it is or would be: its folder may not be there."""
        key = self.key(stage, version, config, inputs)
        return Artifact(stage, key, self.root / stage / key[:20])

    def find(self, stage: str, version: int | str, config: Any, inputs: Inputs) -> Artifact | None:
        """The artifact that answers this question, if it has been made; touches nothing."""
        artifact = self.locate(stage, version, config, inputs)
        if not artifact.path.exists():
            return None
        provenance = artifact.provenance()
        if provenance.get("hash") != artifact.hash:
            raise UndersongError(f"{artifact.path} holds another artifact than its name says; delete it to remake it.")
        for name, (size, _) in provenance.get("files", {}).items():
            _check_size(artifact.path, name, size)
        return artifact

    def configs(self, stage: str) -> Iterator[Any]:
        """What each finished artifact of a stage was configured with, by its provenance alone; one whose provenance
        cannot be read tells nothing."""
        for file in sorted(self.root.glob(f"{stage}/{'[0-9a-f]' * 20}/{PROVENANCE}")):
            try:
                provenance = json.loads(file.read_bytes())
            except (OSError, ValueError):
                continue
            if isinstance(provenance, dict):
                yield provenance.get("config")

    def get_or_make(
        self,
        stage: str,
        version: int | str,
        config: Any,
        inputs: Inputs,
        make: Callable[[Draft], None],
        *,
        seed: int | None = None,
        packages: Sequence[str] = (),
    ) -> Artifact:
        """Look the artifact up, or have `make` write it.  One process makes it; others wait, then read.

        `seed` and `packages` (distributions whose versions matter) are recorded, not part of the key.  A full or
        closed disk is an UndersongError; what else `make` raises passes through.  Finished shards stay either way.
        """
        if existing := self.find(stage, version, config, inputs):
            return existing
        artifact = self.locate(stage, version, config, inputs)
        with report_disk_errors(self.root), _exclusive_lock(artifact.journal) as journal:
            if existing := self.find(stage, version, config, inputs):  # made by the process we waited for
                return existing
            draft = Draft(artifact.partial, journal)
            make(draft)
            provenance = {**_key_content(stage, version, config, inputs), "hash": artifact.hash, "seed": seed}
            draft.publish(artifact.path, provenance | environment_facts(packages))
        return artifact


def _key_content(stage: str, version: int | str, config: Any, inputs: Inputs) -> dict[str, Any]:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", stage):
        raise ValueError(f"stage {stage!r} must be lower-case letters, digits, _ and -: it names a folder")
    hashes = {name: item if isinstance(item, str) else item.hash for name, item in inputs.items()}
    for name, content in hashes.items():
        if not re.fullmatch(r"[0-9a-f]{40,}", content):  # a path would hide every change of the file behind it
            raise ValueError(f"input {name!r} of {stage} is {content!r}: give an artifact or a content hash in hex")
    return {"stage": stage, "version": version, "config": to_jsonable(config, f"config of {stage}"), "inputs": hashes}


def environment_facts(packages: Sequence[str]) -> dict[str, Any]:
    """Versions by metadata, never by importing; null for a package that is not there."""
    from importlib import metadata  # takes 15 ms, and a look-up never needs it

    distributions = {name: next(iter(metadata.distributions(name=name)), None) for name in packages}
    versions = {
        "undersong": __version__,
        **{name: distribution and distribution.version for name, distribution in distributions.items()},
    }
    return {"packages": versions, "python": platform.python_version(), "platform": platform.platform()}


@contextmanager
def _exclusive_lock(path: Path) -> Iterator[BinaryIO]:
    """Hold the lock.  Its file stays: were it removed, two processes could hold two locks of one name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("waiting for the process that is making %s", path.with_name(path.stem[1:]))
            fcntl.flock(file, fcntl.LOCK_EX)
        failpoint("lock:taken")
        yield file


DONE, IN_PROGRESS, INTERRUPTED, MISSING = "done", "being made", "left half-made", "missing"


def artifact_state(artifact: Artifact) -> str:
    """DONE; MAKING: a living process of this or another machine holds its lock; LEFT: by one that died, and the next
    goes on with it; MISSING.  `place`: as `Store.place` gives it."""
    try:
        with artifact.journal.open("rb") as file:  # looked at first: what is published meanwhile is then found done
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass  # nobody ever began it, or only its folder was brought here
    except BlockingIOError:
        return IN_PROGRESS
    if artifact.path.exists():
        return DONE
    return INTERRUPTED if artifact.partial.exists() else MISSING
