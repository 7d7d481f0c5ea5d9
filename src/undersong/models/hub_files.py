"""Small files of a checkpoint, in a folder or on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FILE_OPTIONS = ("revision", "cache_dir", "local_files_only", "token", "force_download")  # of `hf_hub_download`
COMMIT = re.compile(r"[0-9a-f]{40}")


@cache
def hub_errors() -> tuple[type[Exception], ...]:
    """Exceptions of the hub's client without a network, an id or permission; its HTTP library has several names."""
    from huggingface_hub.errors import HfHubHTTPError

    libraries = [import_module(name) for name in ("httpx", "httpx2") if find_spec(name)]
    return (HfHubHTTPError, OSError, ValueError, *(library.HTTPError for library in libraries))


def find_file(source: str | Path, name: str, options: Mapping[str, Any]) -> Path | None:
    """Path of a checkpoint's file, fetched if `source` is a Hugging Face id; None if there is none, or no hub.

    Args:
        source: Folder or Hugging Face id.
        name: Name of the file.
        options: Options of `from_pretrained`; those for the hub and `subfolder` count.
    """
    try:
        return fetch_file(source, name, options)
    except hub_errors():  # no network, no permission, no such id, or no id at all: loading reports it
        return None


def fetch_file(source: str | Path, name: str, options: Mapping[str, Any]) -> Path | None:
    """Path of a checkpoint's file, as `find_file`, but None only if it has none, or offline if it is not in the cache.

    Args:
        source: Folder or Hugging Face id.
        name: Name of the file.
        options: Options of `from_pretrained`; those for the hub and `subfolder` count.

    Raises:
        Exception: One of `hub_errors()`, if the hub does not answer or refuses the file.
    """
    path = f"{options['subfolder']}/{name}" if options.get("subfolder") else name
    if Path(source).is_dir():
        file = Path(source) / path
        return file if file.is_file() else None
    from huggingface_hub import hf_hub_download, is_offline_mode, try_to_load_from_cache  # the core has no hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    hub_options = {key: options[key] for key in FILE_OPTIONS if key in options}
    if COMMIT.fullmatch(str(options.get("revision"))) and not options.get("force_download"):
        # What the cache knows of a commit stays true: a path, or the note that there is no such file. It asks no hub.
        cached = try_to_load_from_cache(
            str(source), path, revision=options["revision"], cache_dir=options.get("cache_dir")
        )
        if cached is not None:
            return Path(cached) if isinstance(cached, str) else None
    try:
        return Path(hf_hub_download(str(source), path, **hub_options))
    except LocalEntryNotFoundError:
        if is_offline_mode() or options.get("local_files_only"):
            return None
        raise
    except EntryNotFoundError:
        return None
