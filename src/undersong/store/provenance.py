"""The files of a folder in its provenance, with sizes and hashes, and the check of a file against them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from undersong.regular_files import is_regular_file
from undersong.store.atomic import TEMPORARY_PREFIX, walk_folder, write_atomic
from undersong.store.hashing import hash_file
from undersong.types import UndersongError

PROVENANCE = "provenance.json"
FileRecord = tuple[int, str]  # size in bytes, SHA-256 in hex


def file_records(folder: Path) -> dict[str, FileRecord]:
    """Size and hash of every file of a folder, by its path in the folder; temporary files and provenance left out."""
    return {
        item.relative_to(folder).as_posix(): (item.stat().st_size, hash_file(item))
        for item in walk_folder(folder)
        if item.is_file() and item != folder / PROVENANCE and not item.name.startswith(TEMPORARY_PREFIX)
    }


def record_files(folder: Path, stage: str, files: Iterable[Path]) -> None:
    """Record files of a folder that grows in its provenance; what it says of others stays.

    Args:
        folder: The folder.
        stage: Name of the command that writes it.
        files: Files in the folder, or in a folder in it.
    """
    records = _read_records(folder / PROVENANCE, folder)
    for file in files:
        records[file.relative_to(folder).as_posix()] = file.stat().st_size, hash_file(file)
    text = json.dumps({"stage": stage, "files": records}, indent=1, sort_keys=True) + "\n"
    write_atomic(folder / PROVENANCE, text.encode())


def check_recorded_file(path: Path) -> bool:
    """Check that a file has the bytes that were written, if the provenance of its folder, or of the two above, says so.

    Returns True if a provenance records the file. Other programs and earlier versions record none.

    Raises:
        UndersongError: The file is not what was written, or the provenance is damaged.
    """
    path = Path(path)
    for folder in path.resolve().parents[:3]:
        record = _read_records(folder / PROVENANCE, path).get(path.resolve().relative_to(folder).as_posix())
        if record is not None:
            if reason := _difference(path, record):
                raise UndersongError(
                    f"{path} is not what undersong wrote ({reason}); make it again with the command that wrote "
                    f"{folder}, or if you changed it on purpose, copy it to a folder of its own."
                )
            return True
    return False


def _difference(path: Path, record: FileRecord) -> str | None:
    size, digest = record
    actual_size = path.stat().st_size
    if actual_size != size:
        return f"it has {actual_size} bytes where {size} were written"
    return None if hash_file(path) == digest else f"its SHA-256 is not the one in {PROVENANCE}"


def _read_records(provenance: Path, path: Path) -> dict[str, FileRecord]:
    """The records in a provenance; empty if there is none, or another program wrote it."""
    if not is_regular_file(provenance):
        return {}
    try:
        content = json.loads(provenance.read_bytes())
        records = content.get("files", {}) if isinstance(content, dict) and "stage" in content else {}
        return {str(name): (int(size), str(digest)) for name, (size, digest) in records.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UndersongError(
            f"{provenance} is damaged, so nobody can tell whether {path} is what undersong wrote; make it again with "
            "the same command, or copy the file to a folder of its own."
        ) from error
