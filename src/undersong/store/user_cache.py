"""The user's cache folder: a store for commands that need none to be named."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "UNDERSONG_CACHE"  # another folder; empty: no cache


def user_cache() -> Path | None:
    """Folder of the user's cache, which may not exist yet; None if UNDERSONG_CACHE is empty.

    It is the folder of UNDERSONG_CACHE, or `undersong` in $XDG_CACHE_HOME, which is ~/.cache unless it is set to an
    absolute path (XDG Base Directory Specification 0.8).
    """
    if (named := os.environ.get(VARIABLE)) is not None:
        return Path(named) if named.strip() else None
    base = Path(os.environ.get("XDG_CACHE_HOME") or "")
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError:  # no home folder is known, as for a user without a name in a container
            return None
    return base / "undersong"


def writable_user_cache() -> Path | None:
    """The user's cache folder, made for this user alone; None if there is none, or it cannot be written."""
    folder = user_cache()
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds texts of the user's data
    except OSError:  # a home that is read-only, or a file of that name
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
