"""Corpora by reference: `organism:NAME` for one that ships with the package, otherwise a path."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from undersong.corpora.manifest import CORPUS, QUARANTINE, Manifest, read_manifest
from undersong.store import canonical, hash_file
from undersong.types import UndersongError

ORGANISM = "organism:"


def open_corpus(ref: str) -> Manifest:
    """The corpus behind `organism:NAME` or the path of a manifest."""
    return read_manifest(_file(ref))


def organism_corpus(name: str) -> Manifest:
    """A packaged corpus of the organism's world (`pool`, `reference`, `test-harm`, …): Ogg/Opus bytes and texts."""
    return read_manifest(_packaged(name))


def corpus_hash(ref: str) -> str:
    """SHA-256 of all a corpus is read from: the manifest's bytes and those of every audio file it names.

    A file that is missing counts as missing, so the hash changes when it appears.
    """
    file = _file(ref)
    if ref.startswith(ORGANISM):  # holds its audio, so there is no need to read it
        return hash_file(file)
    manifest = read_manifest(file)
    parts = [path for path in (file, file.with_name(QUARANTINE)) if path == file or file.name == CORPUS]
    parts += [Path(sample.audio) for sample in manifest.samples if isinstance(sample.audio, str)]
    hashes = [hash_file(part) if part.is_file() else None for part in parts]
    return hashlib.sha256(canonical(hashes).encode()).hexdigest()


def corpus_path(ref: str | Path) -> Path:
    """The manifest's file behind `organism:NAME`, a corpus folder or a path."""
    return _file(str(ref))


def _file(ref: str) -> Path:
    if ref.startswith(ORGANISM):
        return _packaged(ref.removeprefix(ORGANISM))
    return Path(ref, CORPUS) if Path(ref).is_dir() else Path(ref)


def _packaged(name: str) -> Path:
    folder = Path(str(resources.files("undersong"))) / "data" / "organism"
    there = {path.stem: path for path in sorted(folder.glob("*.parquet"))}
    if name not in there:
        raise UndersongError(f"No organism corpus is called {name!r}; choose from: {', '.join(there) or 'none'}.")
    return there[name]
