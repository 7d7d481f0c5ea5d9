"""An artifact while it is written: resumable files, the journal, and the rename that publishes it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from undersong.store.atomic import TEMPORARY_PREFIX, atomic_replacement, failpoint, fsync_path, remove_path, walk_folder
from undersong.store.hashing import canonical_json, to_jsonable
from undersong.store.provenance import PROVENANCE, file_records


class Draft:
    """An artifact in the making, which a stage's `make` writes to.

    Files written directly into `path` are part of the artifact, but only those finished by `file` survive a kill.
    """

    def __init__(self, path: Path, journal: BinaryIO) -> None:
        self.path = path
        self._journal = journal
        self._finished: set[str] = set()
        self._notes: dict[str, Any] = {}
        self._seconds = [0.0, 0.0]  # wall and processor time of the kept work, over all attempts
        self._clock = _clock()
        if path.exists():
            self._resume()
            failpoint("draft:swept")
        else:
            journal.truncate(0)  # it describes a folder that no longer exists
            os.fsync(journal)
        path.mkdir(parents=True, exist_ok=True)
        failpoint("draft:made")

    @property
    def is_empty(self) -> bool:
        """True if the journal vouches for nothing that the next run could continue from."""
        return not self._finished and not self._notes

    @contextmanager
    def file(self, name: str, *, mode: int | None = None) -> Iterator[Path]:
        """Yield a temporary path for a file (or folder); on clean exit it becomes `name` and survives kills.

        `name` may have subfolders. `mode` sets the file's permissions (0o600 for replies) from its first byte on.
        """
        parts = Path(name).parts
        if (
            not parts
            or {"/", "..", PROVENANCE} & set(parts)
            or any(part.startswith(TEMPORARY_PREFIX) for part in parts)
        ):
            raise ValueError(f"{name!r} must be a path inside the artifact, and no file of the store itself")
        with atomic_replacement(self.path / name, mode, sweep=False) as temporary:
            yield temporary
        self._record(finished=Path(name).as_posix())
        self._finished.add(Path(name).as_posix())

    def has(self, name: str) -> bool:
        """True if `file` finished this name, in this run or in a killed one before it."""
        return Path(name).as_posix() in self._finished and (self.path / name).exists()

    def note(self, **facts: Any) -> None:
        """Record JSON-able facts in provenance.json (device, model revision, frozen hashes); a later value replaces an
        earlier one.
        """
        self._notes |= to_jsonable(facts, "note")
        self._record(note=facts)

    def _record(self, **entry: Any) -> None:
        """Append to the journal. An entry starts its own line, so one torn by a kill damages only itself."""
        seconds, self._clock = [now - then for now, then in zip(_clock(), self._clock)], _clock()
        failpoint("journal:before")
        self._journal.write(b"\n" + canonical_json({**entry, "seconds": seconds}).encode())
        os.fsync(self._journal)
        failpoint("journal:written")
        self._seconds = [a + b for a, b in zip(self._seconds, seconds)]

    def _resume(self) -> None:
        """Keep the files that the journal records as finished; remove everything else."""
        self._journal.seek(0)
        for line in self._journal.read().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # blank, or torn by a kill: its shard is made again
                continue
            self._finished.update([entry["finished"]] if "finished" in entry else [])
            self._notes |= entry.get("note", {})
            self._seconds = [a + b for a, b in zip(self._seconds, entry["seconds"])]
        for item in walk_folder(self.path):  # deepest first, so a folder comes after its content is removed
            name = item.relative_to(self.path)
            is_recorded = not self._finished.isdisjoint(part.as_posix() for part in (name, *name.parents))
            contains_files = item.is_dir() and not item.is_symlink() and any(item.iterdir())
            if not is_recorded and not contains_files:
                remove_path(item)

    def publish(self, final: Path, facts: Mapping[str, Any]) -> None:
        """Force everything to disk, write provenance, then rename the folder, which makes the artifact exist."""
        failpoint("publish:before")
        fsync_path(self.path)
        wall, cpu = (previous + now - then for previous, now, then in zip(self._seconds, _clock(), self._clock))
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        provenance = {
            **facts,
            "files": file_records(self.path),
            "notes": self._notes,
            "wall_seconds": wall,
            "cpu_seconds": cpu,
            "created": created,
        }
        with atomic_replacement(self.path / PROVENANCE, sweep=False) as temporary:
            temporary.write_text(
                json.dumps(provenance, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8"
            )
        failpoint("publish:ready")
        self.path.rename(final)
        failpoint("publish:renamed")
        fsync_path(final.parent, deep=False)


def _clock() -> tuple[float, float]:
    """Wall seconds, and processor seconds of this process and its finished children."""
    times = os.times()
    return time.monotonic(), times.user + times.system + times.children_user + times.children_system
