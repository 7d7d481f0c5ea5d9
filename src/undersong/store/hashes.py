"""What names an artefact: the one JSON text of plain data, and hashes of files and folders."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from undersong.store.atomic import walk_folder
from undersong.types import UndersongError


def canonical_json(obj: Any) -> str:
    """The one JSON text of plain data: sorted keys, no blanks, floats by `repr`, ASCII; a tuple is written as a list.

    UndersongError names the place of what JSON cannot say exactly: NaN, infinity, keys or objects of other types.
    """
    return json.dumps(to_jsonable(obj, "value"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_jsonable(obj: Any, label: str) -> Any:
    """A copy with tuples as lists, as JSON has it; `where`: what errors call `obj`.  UndersongError as of
    `canonical`."""
    if obj is None or isinstance(obj, str | int) or (isinstance(obj, float) and math.isfinite(obj)):
        return obj
    if isinstance(obj, Mapping) and all(isinstance(key, str) for key in obj):  # JSON would write 1 and "1" alike
        return {key: to_jsonable(item, f"{label}.{key}") for key, item in obj.items()}
    if isinstance(obj, list | tuple):
        return [to_jsonable(item, f"{label}[{i}]") for i, item in enumerate(obj)]
    raise UndersongError(f"{label} is {obj!r}: use finite numbers, strings, lists, and mappings with string keys.")


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UndersongError(f"cannot read {path}: {error.strerror}; check the path.") from error


def hash_folder(path: str | Path) -> str:
    """SHA-256 of the names and contents of all files under a folder, in hex (of an artefact: its times included)."""
    names = sorted(item.relative_to(path).as_posix() for item in walk_folder(Path(path)) if not item.is_dir())
    if not names:
        raise UndersongError(f"{path} is not a folder with files in it; check the path.")
    return hashlib.sha256(canonical_json([[name, hash_file(Path(path, name))] for name in names]).encode()).hexdigest()
