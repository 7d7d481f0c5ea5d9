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
from undersong.pipeline.unfinished import unfinished_study
from undersong.store import PROVENANCE, TEMPORARY_PREFIX, Store, atomic_replacement, canonical_json
from undersong.types import UndersongError

RESULTS_FILE = "results.json"
PACKAGES = ("torch", "transformers", "peft", "numpy")


def check_output_folder(out: Path, stage: str) -> Path:
    """The folder to write: new, empty, or one that the same verb wrote."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return out
    if _read_stage(out) != stage:
        raise UndersongError(f"{out} exists and was not written by {stage}; name a new folder with --out.")
    return out


def check_study_folder(out: Path, study: str, store: Path) -> None:
    """Refuses a folder for a study's results that is not new, empty, or what the study of that name wrote or began."""
    existing = [entry for entry in out.iterdir() if not entry.name.startswith(TEMPORARY_PREFIX)] if out.is_dir() else []
    if out.exists() and not out.is_dir():
        raise UndersongError(f"{out} is a file; give a folder for --out.")
    if (out / RESULTS_FILE).exists():
        if (other_study := _study_name(out / RESULTS_FILE)) != study:
            owner = "of no study" if other_study is None else f"of the study {other_study!r}"
            raise UndersongError(f"{out} holds results {owner}, not of {study!r}; name another folder with --out.")
        return
    inner_stores = [root for root in (store, out / "store") if root.resolve().is_relative_to(out.resolve())]
    if existing and unfinished_study(out) != study and not any(Store(root).is_initialized for root in inner_stores):
        raise UndersongError(
            f"{out} holds {existing[0].name}, and no results of a study; name a new folder with --out."
        )


def _study_name(results: Path) -> str | None:
    """The name of the study whose results these are."""
    try:
        return str(json.loads(results.read_bytes())["study"]["name"])
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None


def check_same_provenance(out: Path, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Refuses to replace what the verb made of anything else: for what took too long to be lost by a name."""
    provenance = _read_provenance(out)
    previous = {**provenance.get("config", {}), **provenance.get("inputs", {})}
    current = json.loads(canonical_json({**config, **inputs}))
    differing = sorted(name for name in previous.keys() | current.keys() if previous.get(name) != current.get(name))
    if provenance and differing:
        raise UndersongError(
            f"{out} holds what {stage} made with another {differing[0]}; name a new folder with --out, or remove it."
        )


def _read_stage(folder: Path) -> str | None:
    return _read_provenance(folder).get("stage")


def _read_provenance(folder: Path) -> dict[str, Any]:
    """What a verb wrote of how it made the folder; nothing, where none did."""
    try:
        provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return provenance if isinstance(provenance, dict) else {}


@contextmanager
def atomic_folder(out: Path, stage: str) -> Iterator[Path]:
    """A folder to write to that takes the name `out` when all is in it."""
    check_output_folder(out, stage)  # again: training takes long enough for somebody else to write there
    with atomic_replacement(out) as folder:
        folder.mkdir()
        yield folder


def write_provenance(
    folder: Path, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], notes: Mapping[str, Any]
) -> None:
    """How the folder was made, in the words of the store's provenance."""
    packages = {"undersong": __version__, **{name: metadata.version(name) for name in PACKAGES}}
    provenance = {
        "stage": stage,
        "config": dict(config),
        "inputs": dict(inputs),
        "notes": dict(notes),
        "packages": packages,
    }
    provenance |= {"python": platform.python_version(), "platform": platform.platform()}
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1, sort_keys=True) + "\n", encoding="utf-8")
