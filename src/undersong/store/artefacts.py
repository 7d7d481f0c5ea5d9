"""What each stage made, under the hash of what it was made from.  Knows files and hashes, not what an artefact means.

A stage is a function from a config and inputs to one folder, `root/stage/hash[:20]`.  It grows as `hash[:20].partial`
and gets its final name by one rename when all is on disk: whoever dies, and wherever, a folder under its final name is
whole.  `.hash[:20].journal` beside it is the lock, and vouches for the shards that a killed run finished: the next run
keeps those and sweeps everything else.
"""

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
from undersong.store.drafts import PROVENANCE, Draft
from undersong.store.failpoints import failpoint
from undersong.store.files import mending
from undersong.store.hashes import canonical, hash_file, plain
from undersong.types import UndersongError

logger = logging.getLogger("undersong.store")


def remedy(file: Path) -> str:
    """What to do about a damaged file: one inside an artefact is made again when that is deleted."""
    folder = next((parent for parent in file.parents if (parent / PROVENANCE).is_file()), None)
    return "write it again" if folder is None else f"delete {folder}, and it is made anew"


@dataclass(frozen=True, slots=True)
class Artefact:
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

    def checked(self) -> Artefact:
        """The same, once every file in it has the bytes that were written; asked of what is read to compute with."""
        _check_files(self)
        return self


@cache  # once a process
def _check_files(artefact: Artefact) -> None:
    for name, (size, digest) in artefact.provenance().get("files", {}).items():
        _check_size(artefact.path, name, size)
        if hash_file(artefact.path / name) != digest:
            raise _damaged(artefact.path, f"{name} is not what was written")


def _check_size(folder: Path, name: str, size: int) -> None:
    try:
        there = (folder / name).stat().st_size
    except OSError:
        raise _damaged(folder, f"{name} is gone") from None
    if there != size:
        raise _damaged(folder, f"{name} has {there} bytes where {size} were written")


def _damaged(folder: Path, why: str) -> UndersongError:
    return UndersongError(f"{folder} is damaged ({why}); delete that folder, and it is made anew.")


Inputs: TypeAlias = Mapping[str, Artefact | str]


class Store:
    """Artefacts under one root folder.  Same question again = a look-up."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @property
    def begun(self) -> bool:
        """Whether a store is there: a stage was begun in it."""
        return any(self.root.glob("*/.*.journal"))

    def key(self, stage: str, version: int | str, config: Any, inputs: Inputs) -> str:
        """SHA-256 of the question.  `config`: JSON-able; it holds whatever the result depends on, seeds included."""
        return hashlib.sha256(canonical(_question(stage, version, config, inputs)).encode()).hexdigest()

    def place(self, stage: str, version: int | str, config: Any, inputs: Inputs) -> Artefact:
        """The artefact as it is or would be: its folder may not be there."""
        key = self.key(stage, version, config, inputs)
        return Artefact(stage, key, self.root / stage / key[:20])

    def find(self, stage: str, version: int | str, config: Any, inputs: Inputs) -> Artefact | None:
        """The artefact that answers this question, if it has been made; touches nothing."""
        found = self.place(stage, version, config, inputs)
        if not found.path.exists():
            return None
        facts = found.provenance()
        if facts.get("hash") != found.hash:
            raise UndersongError(f"{found.path} holds another artefact than its name says; delete it to remake it.")
        for name, (size, _) in facts.get("files", {}).items():
            _check_size(found.path, name, size)
        return found

    def configs(self, stage: str) -> Iterator[Any]:
        """What each finished artefact of a stage was configured with, by its provenance alone; one whose provenance
        cannot be read tells nothing."""
        for file in sorted(self.root.glob(f"{stage}/{'[0-9a-f]' * 20}/{PROVENANCE}")):
            try:
                facts = json.loads(file.read_bytes())
            except (OSError, ValueError):
                continue
            if isinstance(facts, dict):
                yield facts.get("config")

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
    ) -> Artefact:
        """Look the artefact up, or have `make` write it.  One process makes it; others wait, then read.

        `seed` and `packages` (distributions whose versions matter) are recorded, not part of the key.  A full or
        closed disk is an UndersongError; what else `make` raises passes through.  Finished shards stay either way.
        """
        if found := self.find(stage, version, config, inputs):
            return found
        place = self.place(stage, version, config, inputs)
        with mending(self.root), _locked(place.journal) as journal:
            if found := self.find(stage, version, config, inputs):  # made by the process we waited for
                return found
            draft = Draft(place.partial, journal)
            make(draft)
            facts = {**_question(stage, version, config, inputs), "hash": place.hash, "seed": seed}
            draft.publish(place.path, facts | _surroundings(packages))
        return place


def _question(stage: str, version: int | str, config: Any, inputs: Inputs) -> dict[str, Any]:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", stage):
        raise ValueError(f"stage {stage!r} must be lower-case letters, digits, _ and -: it names a folder")
    hashes = {name: item if isinstance(item, str) else item.hash for name, item in inputs.items()}
    for name, content in hashes.items():
        if not re.fullmatch(r"[0-9a-f]{40,}", content):  # a path would hide every change of the file behind it
            raise ValueError(f"input {name!r} of {stage} is {content!r}: give an artefact or a content hash in hex")
    return {"stage": stage, "version": version, "config": plain(config, f"config of {stage}"), "inputs": hashes}


def _surroundings(packages: Sequence[str]) -> dict[str, Any]:
    """Versions by metadata, never by importing; null for a package that is not there."""
    from importlib import metadata  # takes 15 ms, and a look-up never needs it

    there = {name: next(iter(metadata.distributions(name=name)), None) for name in packages}
    versions = {"undersong": __version__, **{name: found and found.version for name, found in there.items()}}
    return {"packages": versions, "python": platform.python_version(), "platform": platform.platform()}


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
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
