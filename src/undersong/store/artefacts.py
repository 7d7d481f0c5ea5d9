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
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from undersong import __version__
from undersong.store.failpoints import failpoint
from undersong.store.files import WRITING, mending, remove, replacing, sync
from undersong.store.hashes import canonical, hash_file, plain, walk
from undersong.types import UndersongError

PROVENANCE = "provenance.json"
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


class Draft:
    """The artefact being made: what a stage's `make` writes to.

    Files written straight into `path` are part of the artefact, but only what `file` finished outlives a kill.
    """

    def __init__(self, path: Path, journal: BinaryIO) -> None:
        self.path = path
        self._journal = journal
        self._finished: set[str] = set()
        self._notes: dict[str, Any] = {}
        self._seconds = [0.0, 0.0]  # wall and processor time of the work that is kept, over all attempts
        self._clock = _clock()
        if path.exists():
            self._resume()
            failpoint("draft:swept")
        else:
            journal.truncate(0)  # it speaks of a folder that is gone
            os.fsync(journal)
        path.mkdir(parents=True, exist_ok=True)
        failpoint("draft:made")

    @contextmanager
    def file(self, name: str, *, mode: int | None = None) -> Iterator[Path]:
        """A temporary path to write a file (or folder) to; on clean exit it becomes `name`, safe from kills.

        `name` may have subfolders.  `mode`: the file's permissions (0o600 for replies), in force from its first byte.
        """
        parts = Path(name).parts
        if not parts or {"/", "..", PROVENANCE} & set(parts) or any(part.startswith(WRITING) for part in parts):
            raise ValueError(f"{name!r} must be a path inside the artefact, and none of the store's own")
        with replacing(self.path / name, mode) as temporary:
            yield temporary
        self._record(finished=Path(name).as_posix())
        self._finished.add(Path(name).as_posix())

    def has(self, name: str) -> bool:
        """Whether `file` finished this shard, in this run or in a killed one before it."""
        return Path(name).as_posix() in self._finished and (self.path / name).exists()

    def note(self, **facts: Any) -> None:
        """JSON-able facts for provenance.json (device, model revision, frozen hashes); of two, the last counts."""
        self._notes |= plain(facts, "note")
        self._record(note=facts)

    def _record(self, **entry: Any) -> None:
        """Append to the journal.  An entry begins its own line, so one torn by a kill spoils only itself."""
        seconds, self._clock = [now - then for now, then in zip(_clock(), self._clock)], _clock()
        failpoint("journal:before")
        self._journal.write(b"\n" + canonical({**entry, "seconds": seconds}).encode())
        os.fsync(self._journal)
        failpoint("journal:written")
        self._seconds = [a + b for a, b in zip(self._seconds, seconds)]

    def _resume(self) -> None:
        """Take over what the journal vouches for; remove everything else."""
        self._journal.seek(0)
        for line in self._journal.read().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # blank, or torn by the kill: its shard is made again
                continue
            self._finished.update([entry["finished"]] if "finished" in entry else [])
            self._notes |= entry.get("note", {})
            self._seconds = [a + b for a, b in zip(self._seconds, entry["seconds"])]
        for item in walk(self.path):  # deepest first, so a folder is met when it is as empty as it gets
            name = item.relative_to(self.path)
            vouched = not self._finished.isdisjoint(part.as_posix() for part in (name, *name.parents))
            holds_shards = item.is_dir() and not item.is_symlink() and any(item.iterdir())
            if not vouched and not holds_shards:
                remove(item)

    def _publish(self, final: Path, facts: Mapping[str, Any]) -> None:
        """All on disk, then provenance, then the one rename that makes the artefact exist."""
        failpoint("publish:before")
        sync(self.path)
        wall, cpu = (kept + now - then for kept, now, then in zip(self._seconds, _clock(), self._clock))
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        files = {
            item.relative_to(self.path).as_posix(): [item.stat().st_size, hash_file(item)]
            for item in walk(self.path)
            if item.is_file()
        }
        whole = {
            **facts,
            "files": files,
            "notes": self._notes,
            "wall_seconds": wall,
            "cpu_seconds": cpu,
            "created": created,
        }
        with replacing(self.path / PROVENANCE) as temporary:
            temporary.write_text(json.dumps(whole, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
        failpoint("publish:ready")
        self.path.rename(final)
        failpoint("publish:renamed")
        sync(final.parent, deep=False)


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
            draft._publish(place.path, facts | _surroundings(packages))
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


def _clock() -> tuple[float, float]:
    """Wall seconds, and processor seconds of this process and its finished children."""
    spent = os.times()
    return time.monotonic(), spent.user + spent.system + spent.children_user + spent.children_system
