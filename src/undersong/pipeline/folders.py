"""Output folders of the verbs that work alone: whole or not there, and never over somebody else's files."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from undersong import __version__
from undersong.pipeline.unfinished import noted
from undersong.store import PROVENANCE, WRITING, Store, canonical, replacing
from undersong.types import UndersongError

RESULTS = "results.json"
PACKAGES = ("torch", "transformers", "peft", "numpy")


def writable(out: Path, stage: str) -> Path:
    """The folder to write: new, empty, or one that the same verb wrote."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return out
    if _stage_of(out) != stage:
        raise UndersongError(f"{out} exists and was not written by {stage}; name a new folder with --out.")
    return out


def for_study(out: Path, study: str, store: Path) -> None:
    """Refuses a folder for a study's results that is not new, empty, or what the study of that name wrote or began."""
    there = [item for item in out.iterdir() if not item.name.startswith(WRITING)] if out.is_dir() else []
    if out.exists() and not out.is_dir():
        raise UndersongError(f"{out} is a file; give a folder for --out.")
    if (out / RESULTS).exists():
        if (other := _study_of(out / RESULTS)) != study:
            whose = "of no study" if other is None else f"of the study {other!r}"
            raise UndersongError(f"{out} holds results {whose}, not of {study!r}; name another folder with --out.")
        return
    inside = [root for root in (store, out / "store") if root.resolve().is_relative_to(out.resolve())]
    if there and noted(out) != study and not any(Store(root).begun for root in inside):
        raise UndersongError(f"{out} holds {there[0].name}, and no results of a study; name a new folder with --out.")


def _study_of(results: Path) -> str | None:
    """The name of the study whose results these are."""
    try:
        return str(json.loads(results.read_bytes())["study"]["name"])
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None


def same_as_before(out: Path, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Refuses to replace what the verb made of anything else: for what took too long to be lost by a name."""
    facts = _provenance_of(out)
    made = {**facts.get("config", {}), **facts.get("inputs", {})}
    asked = json.loads(canonical({**config, **inputs}))
    other = sorted(name for name in made.keys() | asked.keys() if made.get(name) != asked.get(name))
    if facts and other:
        raise UndersongError(
            f"{out} holds what {stage} made with another {other[0]}; name a new folder with --out, or remove it."
        )


def _stage_of(folder: Path) -> str | None:
    return _provenance_of(folder).get("stage")


def _provenance_of(folder: Path) -> dict[str, Any]:
    """What a verb wrote of how it made the folder; nothing, where none did."""
    try:
        facts = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


@contextmanager
def whole(out: Path, stage: str) -> Iterator[Path]:
    """A folder to write to that takes the name `out` when all is in it."""
    writable(out, stage)  # again: training takes long enough for somebody else to write there
    with replacing(out) as folder:
        folder.mkdir()
        yield folder


def write_provenance(
    folder: Path, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], notes: Mapping[str, Any]
) -> None:
    """How the folder was made, in the words of the store's provenance."""
    packages = {"undersong": __version__, **{name: metadata.version(name) for name in PACKAGES}}
    facts = {"stage": stage, "config": dict(config), "inputs": dict(inputs), "notes": dict(notes), "packages": packages}
    facts |= {"python": platform.python_version(), "platform": platform.platform()}
    (folder / PROVENANCE).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
