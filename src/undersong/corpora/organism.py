"""Corpora by reference: `organism:NAME` ships with the package, `preset:ID` and `hf:NAME` are known or on the Hub,
everything else is a path.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

from undersong.corpora.forms.manifest import CORPUS, QUARANTINE, Manifest, read_manifest
from undersong.corpora.forms.rows import row_of
from undersong.hints import nearest
from undersong.store import canonical, hash_file, hash_files
from undersong.types import UndersongError

ORGANISM, PRESET, HUB = "organism:", "preset:", "hf:"
NAME = re.compile(r"(?!hf:)[\w:-]+")  # of what ships or is known, rather than a path


def open_corpus(ref: str, columns: Mapping[str, str] | None = None, root: str | Path | None = None) -> Manifest:
    """The corpus behind `organism:NAME`, `preset:ID` (`preset:ID=PATH` for a local copy), `hf:…` or a path.

    columns and root: as in `open_manifest`, for all but packaged corpora and presets, which have their own.
    """
    if columns and ref.startswith((ORGANISM, PRESET)):
        raise UndersongError(f"{ref} has its own column names; leave the column map out.")
    if ref.startswith(ORGANISM):
        return read_manifest(_file(ref))
    if ref.startswith(PRESET):
        from undersong.corpora.presets import open_preset

        name, _, path = ref.removeprefix(PRESET).partition("=")
        return open_preset(name, path or None, root=root)
    refuse_misspelt(ref)
    from undersong.corpora.forms.opening import open_manifest

    return open_manifest(ref, columns=columns, root=root)


def refuse_misspelt(ref: str) -> None:
    """A corpus that is not here, and whose reference is nearly the name of one that ships or is known."""
    if is_here(ref) or not NAME.fullmatch(ref) or ref in (known := _refs()):
        return
    if hint := nearest(ref, known):
        raise UndersongError(f"There is no manifest {ref}{hint}")


def organism_corpus(name: str) -> Manifest:
    """A packaged corpus of the organism's world (`pool`, `reference`, `test-harm`, …): Ogg/Opus bytes and texts."""
    return read_manifest(_packaged(name))


def corpus_hash(ref: str, columns: Mapping[str, str] | None = None, memory: Path | None = None) -> str:
    """SHA-256 of all a corpus is read from: the manifest's bytes and those of every audio file it names.

    A file that is missing counts as missing, so the hash changes when it appears.  What is no single file (a folder of
    audio, a preset, a data set of the Hub, which is fetched for this) has the hash of its items.  `columns`: as in
    `open_corpus`, because one of them may name the audio.  `memory`: a folder that keeps the hashes of files, so that
    those which have not changed are not read again.
    """
    if ref.startswith(ORGANISM):  # holds its audio, so there is no need to read it
        return hash_file(_file(ref))
    if ref.startswith((PRESET, HUB)) or not (file := _file(ref)).is_file():
        return manifest_hash(open_corpus(ref, columns))
    named = hashlib.sha256(canonical([str(Path.cwd() / file), dict(columns or {})]).encode()).hexdigest()[:20]
    kept = None if memory is None else memory / f"{named}.parquet"

    def rest() -> list[str]:
        audio = [sample.audio for sample in open_corpus(ref, columns).samples if isinstance(sample.audio, str)]
        return [*([str(file.with_name(QUARANTINE))] if file.name == CORPUS else []), *audio]

    return hashlib.sha256(canonical(hash_files(str(file), rest, kept)).encode()).hexdigest()


def is_here(ref: str) -> bool:
    """Whether a corpus can be read without a network: it ships, or its file or folder exists."""
    if ref.startswith(PRESET):
        ref = ref.partition("=")[2]
    return ref.startswith(ORGANISM) or (bool(ref) and not ref.startswith(HUB) and Path(ref).exists())


def manifest_hash(manifest: Manifest) -> str:
    """SHA-256 of a corpus as read: its items in order with the hashes of their audio, and its quarantine."""
    digest = hashlib.sha256()
    for sample in manifest.samples:
        audio: str | None = None
        if isinstance(sample.audio, bytes):
            audio = hashlib.sha256(sample.audio).hexdigest()
        elif sample.audio is not None and Path(sample.audio).is_file():
            audio = hash_file(sample.audio)
        fields = {**row_of(replace(sample, audio=None), Path.cwd()), "audio": audio}
        digest.update(f"{canonical(fields)}\n".encode())
    digest.update(canonical([[item.id, item.reason] for item in manifest.quarantined]).encode())
    return digest.hexdigest()


def corpus_path(ref: str | Path) -> Path:
    """The manifest's file behind `organism:NAME`, a corpus folder or a path."""
    return _file(str(ref))


def _file(ref: str) -> Path:
    if ref.startswith(ORGANISM):
        return _packaged(ref.removeprefix(ORGANISM))
    return Path(ref, CORPUS) if Path(ref, CORPUS).is_file() else Path(ref)


def _packaged(name: str) -> Path:
    there = _corpora()
    if name not in there:
        raise UndersongError(f"No organism corpus is called {name!r}; choose from: {', '.join(there) or 'none'}.")
    return there[name]


def _corpora() -> dict[str, Path]:
    folder = Path(str(resources.files("undersong"))) / "data" / "organism"
    return {path.stem: path for path in sorted(folder.glob("*.parquet"))}


def _refs() -> list[str]:
    """What packaged corpora and presets are called by."""
    from undersong.corpora.presets import known_presets

    return [*(f"{ORGANISM}{name}" for name in _corpora()), *(f"{PRESET}{name}" for name in known_presets())]
