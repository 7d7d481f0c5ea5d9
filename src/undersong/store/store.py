"""Artifacts and the store: cache keys, look-up, integrity checks, locking, and the state of an unfinished artifact."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from undersong import __version__
from undersong.store.atomic import failpoint, remove_path, report_disk_errors, sweep_removed
from undersong.store.draft import Draft
from undersong.store.hashing import canonical_json, hash_file, to_jsonable
from undersong.store.locks import persistent_lock
from undersong.store.provenance import PROVENANCE
from undersong.types import UndersongError


def repair_hint(file: Path) -> str:
    """Advice about a damaged file: one inside an artifact is made again once the artifact is deleted."""
    folder = next((parent for parent in file.parents if (parent / PROVENANCE).is_file()), None)
    return "write it again" if folder is None else f"delete {folder}, and it is made again"


@dataclass(frozen=True, slots=True)
class Artifact:
    """Result of a stage: `location` is its folder, `hash` the hash of everything that it was made from.

    Read its files through `path`, which checks them first. `location` is for questions that read no file: whether the
    folder exists, and what it is called.
    """

    stage: str
    hash: str
    location: Path

    @property
    def path(self) -> Path:
        """The folder, after a check that all its files have the bytes that were written (once a process).

        Raises UndersongError for a damaged artifact.
        """
        return self.verify().location

    @property
    def partial(self) -> Path:
        """Folder of the unfinished artifact."""
        return self.location.with_name(f"{self.location.name}.partial")

    @property
    def journal(self) -> Path:
        """Lock file of the process that makes the artifact; it also records finished shards."""
        return self.location.with_name(f".{self.location.name}.journal")

    def provenance(self) -> dict[str, Any]:
        """Provenance of the artifact: config, inputs, versions, notes, times."""
        try:
            return dict(json.loads((self.location / PROVENANCE).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise UndersongError(
                f"{self.location} has a damaged {PROVENANCE}; delete the folder to remake it."
            ) from error

    def verify(self) -> Artifact:
        """Check that all files have the bytes that were written; return the artifact."""
        _check_files(self)
        return self


@cache  # once a process
def _check_files(artifact: Artifact) -> None:
    for name, (size, digest) in artifact.provenance().get("files", {}).items():
        _check_size(artifact.location, name, size)
        if hash_file(artifact.location / name) != digest:
            raise _damaged(artifact.location, f"{name} is not what was written")


def _check_size(folder: Path, name: str, size: int) -> None:
    try:
        actual_size = (folder / name).stat().st_size
    except OSError:
        raise _damaged(folder, f"{name} is missing") from None
    if actual_size != size:
        raise _damaged(folder, f"{name} has {actual_size} bytes where {size} were written")


def _damaged(folder: Path, reason: str) -> UndersongError:
    return UndersongError(f"{folder} is damaged ({reason}); delete that folder, and it is made again.")


Inputs: TypeAlias = Mapping[str, Artifact | str]


class Store:
    """Artifacts under one root folder. The same cache key gives the same artifact."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.before_make: Callable[[], None] | None = None  # called before an artifact is made, by this process

    @property
    def is_initialized(self) -> bool:
        """True if any stage was started in this store."""
        return any(self.root.glob("*/.*.journal"))

    @property
    def has_artifacts(self) -> bool:
        """True if any artifact in this store is finished."""
        return any(self.root.glob(f"*/{'[0-9a-f]' * 20}/{PROVENANCE}"))

    def key(self, stage: str, version: int | str, config: Any, inputs: Inputs) -> str:
        """SHA-256 of everything that an artifact depends on.

        Args:
            stage: Name of the stage.
            version: Version of the stage's code.
            config: JSON-able settings that the result depends on, seeds included.
            inputs: Name -> artifact or content hash.
        """
        return hashlib.sha256(canonical_json(_key_content(stage, version, config, inputs)).encode()).hexdigest()

    def locate(self, stage: str, version: int | str, config: Any, inputs: Inputs) -> Artifact:
        """The artifact as it is or would be; its folder may not exist. Arguments as in `key`.

        Args:
            stage: Name of the stage.
            version: Version of the stage's code.
            config: JSON-able settings that the result depends on.
            inputs: Name -> artifact or content hash.
        """
        key = self.key(stage, version, config, inputs)
        return Artifact(stage, key, self.root / stage / key[:20])

    def find(self, stage: str, version: int | str, config: Any, inputs: Inputs) -> Artifact | None:
        """The finished artifact with this key, or None; changes nothing.

        Args:
            stage: Name of the stage.
            version: Version of the stage's code.
            config: JSON-able settings that the result depends on.
            inputs: Name -> artifact or content hash.

        Raises:
            UndersongError: A damaged artifact.
        """
        artifact = self.locate(stage, version, config, inputs)
        if not artifact.location.exists():
            return None
        provenance = artifact.provenance()
        if provenance.get("hash") != artifact.hash:
            raise UndersongError(
                f"{artifact.location} holds another artifact than its name says; delete it to remake it."
            )
        for name, (size, _) in provenance.get("files", {}).items():
            _check_size(artifact.location, name, size)
        return artifact

    def configs(self, stage: str) -> Iterator[Any]:
        """Yield the config of each finished artifact of a stage; unreadable ones are skipped."""
        for provenance in self.provenances(stage):
            yield provenance.get("config")

    def provenances(self, stage: str) -> Iterator[dict[str, Any]]:
        """Yield the provenance of each finished artifact of a stage; unreadable ones are skipped."""
        for file in sorted(self.root.glob(f"{stage}/{'[0-9a-f]' * 20}/{PROVENANCE}")):
            try:
                provenance = json.loads(file.read_bytes())
            except (OSError, ValueError):
                continue
            if isinstance(provenance, dict):
                yield provenance

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
        """Look the artifact up, or let `make` write it. One process makes it; others wait, then read.

        Finished shards are kept even if `make` raises; its errors pass through. Where it finished none, an error about
        the input leaves nothing behind.

        Args:
            stage: Name of the stage.
            version: Version of the stage's code.
            config: JSON-able settings that the result depends on.
            inputs: Name -> artifact or content hash.
            make: Writes the artifact to a draft.
            seed: Recorded, but not part of the key.
            packages: Distributions whose versions are recorded, but are not part of the key.

        Raises:
            UndersongError: A full or read-only disk, or a damaged artifact.
        """
        if existing := self.find(stage, version, config, inputs):
            return existing
        artifact = self.locate(stage, version, config, inputs)
        with report_disk_errors(self.root), persistent_lock(artifact.journal, artifact.location) as journal:
            failpoint("lock:taken")
            if existing := self.find(stage, version, config, inputs):  # made by the process we waited for
                return existing
            sweep_removed(artifact.location.parent, rf"{artifact.location.name}(\.\w+)?")
            draft = Draft(artifact.partial, journal)
            if self.before_make is not None:
                self.before_make()
            try:
                make(draft)
            except UndersongError:
                if draft.is_empty:
                    _remove_unfinished(artifact)
                raise
            provenance = {**_key_content(stage, version, config, inputs), "hash": artifact.hash, "seed": seed}
            draft.publish(artifact.location, provenance | environment_facts(packages))
        return artifact


def _remove_unfinished(artifact: Artifact) -> None:
    """Remove the draft and the journal of an artifact, unless shards or a training's state are kept beside them.

    The journal is removed while it is held, so that who waits for it locks a new file.
    """
    files = {path for path in artifact.location.parent.iterdir() if artifact.location.name in path.name}
    if files <= {artifact.partial, artifact.journal}:
        remove_path(artifact.partial)
        artifact.journal.unlink(missing_ok=True)


def _key_content(stage: str, version: int | str, config: Any, inputs: Inputs) -> dict[str, Any]:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", stage):
        raise ValueError(f"stage {stage!r} must be lower-case letters, digits, _ and -, because it names a folder")
    hashes = {name: item if isinstance(item, str) else item.hash for name, item in inputs.items()}
    for name, content in hashes.items():
        if not re.fullmatch(r"[0-9a-f]{40,}", content):  # a path would hide every change of the file behind it
            raise ValueError(f"input {name!r} of {stage} is {content!r}: give an artifact or a content hash in hex")
    return {"stage": stage, "version": version, "config": to_jsonable(config, f"config of {stage}"), "inputs": hashes}


def environment_facts(packages: Sequence[str]) -> dict[str, Any]:
    """Versions of packages from their metadata, without importing them; null for a missing package."""
    from importlib import metadata  # takes 15 ms, and a look-up never needs it

    distributions = {name: next(iter(metadata.distributions(name=name)), None) for name in packages}
    versions = {
        "undersong": __version__,
        **{name: distribution and distribution.version for name, distribution in distributions.items()},
    }
    return {"packages": versions, "python": platform.python_version(), "platform": platform.platform()}


DONE, IN_PROGRESS, INTERRUPTED, MISSING = "done", "being made", "left half-made", "missing"


def artifact_state(artifact: Artifact) -> str:
    """State of an artifact as `Store.locate` returns it.

    DONE; IN_PROGRESS, if a living process (on any machine) holds its lock; INTERRUPTED, if a process died and the next
    one will continue; or MISSING.
    """
    try:
        with artifact.journal.open("rb") as file:  # before the folder: an artifact published meanwhile counts as done
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass  # never started, or only its folder was copied here
    except BlockingIOError:
        return IN_PROGRESS
    if artifact.location.exists():
        return DONE
    return INTERRUPTED if artifact.partial.exists() else MISSING
