"""What a store holds: artifacts with their sizes and ages, finished or not, and their removal."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from undersong.store.atomic import remove_path, report_disk_errors, sweep_removed, walk_folder
from undersong.store.provenance import PROVENANCE
from undersong.store.store import IN_PROGRESS, Artifact, Store, artifact_state
from undersong.types import UndersongError

FOLDER_NAME = re.compile(r"([0-9a-f]{20})(\.partial|\.shards)?")
STAGE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class StoredFolder:
    """A folder of a store.

    Attributes:
        stage: Stage that made it.
        name: First 20 digits of the artifact's hash.
        path: The folder.
        size: Bytes of its files.
        created: When it was finished, or last changed if it is unfinished; seconds since 1970.
        is_finished: False for an artifact that is still growing, or was left half-made.
        inputs: Hashes of what it was made from.
    """

    stage: str
    name: str
    path: Path
    size: int
    created: float
    is_finished: bool
    inputs: tuple[str, ...] = field(default=(), repr=False)


def list_store(root: str | Path) -> list[StoredFolder]:
    """List the artifacts of a store, by stage and age. Links and files of others are not listed.

    Raises:
        UndersongError: There is no store.
    """
    store = Store(root)
    if not (store.is_initialized or store.has_artifacts):
        raise UndersongError(f"{root} is no store of undersong; name the folder that was given as --store.")
    folders = list[StoredFolder]()
    for stage in sorted(path for path in store.root.iterdir() if path.is_dir() and not path.is_symlink()):
        if STAGE_NAME.fullmatch(stage.name):
            folders += _stage_folders(stage)
    return sorted(folders, key=lambda folder: (folder.stage, folder.created))


def _stage_folders(stage: Path) -> Iterator[StoredFolder]:
    for path in stage.iterdir():
        match = FOLDER_NAME.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_dir():
            continue
        provenance = {} if match[2] else _provenance(path)
        yield StoredFolder(
            stage.name,
            match[1],
            path,
            sum(item.lstat().st_size for item in walk_folder(path) if not item.is_dir()),
            _created(provenance, path),
            bool(provenance),
            tuple(str(value) for value in provenance.get("inputs", {}).values()),
        )


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / PROVENANCE).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("inputs", {}), dict) else {}


def _created(provenance: dict[str, Any], folder: Path) -> float:
    try:
        created = datetime.strptime(str(provenance["created"]), "%Y-%m-%dT%H:%M:%SZ")
    except (KeyError, ValueError):
        return folder.lstat().st_mtime
    return created.replace(tzinfo=UTC).timestamp()


def with_inputs(names: Iterable[tuple[str, str]], folders: Collection[StoredFolder]) -> set[tuple[str, str]]:
    """Stage and name of artifacts, and of all artifacts that these were made from, directly or not.

    Args:
        names: Stage and name of each artifact.
        folders: What the store holds.
    """
    by_name: dict[str, list[StoredFolder]] = {}
    for folder in folders:
        by_name.setdefault(folder.name, []).append(folder)
    needed, open_names = set[tuple[str, str]](), list(names)
    while open_names:
        stage, name = open_names.pop()
        if (stage, name) in needed:
            continue
        needed.add((stage, name))
        for folder in by_name.get(name, ()):
            for digest in folder.inputs:
                open_names += [(made.stage, made.name) for made in by_name.get(digest[:20], ())]
    return needed


def check_nothing_grows(root: str | Path, folders: Iterable[StoredFolder]) -> None:
    """Check that no process works on the store, which might need what is removed.

    Raises:
        UndersongError: A process is making an artifact.
    """
    for folder in folders:
        path = Path(root) / folder.stage / folder.name
        if artifact_state(Artifact(folder.stage, folder.name, path)) == IN_PROGRESS:
            raise UndersongError(f"A process is making {path}; remove artifacts when no run is active.")


def remove_folders(root: str | Path, folders: Iterable[StoredFolder]) -> None:
    """Remove folders of a store, and what killed removals left.

    Args:
        root: The store.
        folders: Folders that `list_store` listed.

    Raises:
        UndersongError: The disk cannot be written.
    """
    with report_disk_errors(Path(root)):
        for stage in Path(root).iterdir():
            sweep_removed(stage)
        for folder in folders:
            remove_path(folder.path)
