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

from undersong.corpora.manifest import CORPUS, QUARANTINE, Manifest, read_manifest
from undersong.corpora.rows import row_from_sample
from undersong.store import cached_file_hashes, canonical_json, hash_file
from undersong.suggestions import did_you_mean
from undersong.types import UndersongError

ORGANISM_PREFIX, PRESET_PREFIX, HUB_PREFIX = "organism:", "preset:", "hf:"
CORPUS_NAME = re.compile(r"(?!hf:)[\w:-]+")  # of what ships or is known, rather than a path


def open_corpus(ref: str, columns: Mapping[str, str] | None = None, root: str | Path | None = None) -> Manifest:
    """The corpus behind `organism:NAME`, `preset:ID` (`preset:ID=PATH` for a local copy), `hf:…` or a path.

    columns and root: as in `open_manifest`, for all but packaged corpora and presets, which have their own.
    """
    if columns and ref.startswith((ORGANISM_PREFIX, PRESET_PREFIX)):
        raise UndersongError(f"{ref} has its own column names; leave the column map out.")
    if ref.startswith(ORGANISM_PREFIX):
        return read_manifest(_manifest_file(ref))
    if ref.startswith(PRESET_PREFIX):
        from undersong.corpora.registry import open_preset

        name, _, path = ref.removeprefix(PRESET_PREFIX).partition("=")
        return open_preset(name, path or None, root=root)
    check_corpus_ref(ref)
    from undersong.corpora.formats import open_manifest

    return open_manifest(ref, columns=columns, root=root)


def check_corpus_ref(ref: str) -> None:
    """A corpus that is not here, and whose reference is nearly the name of one that ships or is known."""
    if is_local_corpus(ref) or not CORPUS_NAME.fullmatch(ref) or ref in (refs := _named_refs()):
        return
    if hint := did_you_mean(ref, refs):
        raise UndersongError(f"There is no manifest {ref}{hint}")


def organism_corpus(name: str) -> Manifest:
    """A packaged corpus of the organism's world (`pool`, `reference`, `test-harm`, …): Ogg/Opus bytes and texts."""
    return read_manifest(_organism_path(name))


def corpus_hash(ref: str, columns: Mapping[str, str] | None = None, cache_folder: Path | None = None) -> str:
    """SHA-256 of all a corpus is read from: the manifest's bytes and those of every audio file it names.

    A file that is missing counts as missing, so the hash changes when it appears.  What is no single file (a folder of
    audio, a preset, a data set of the Hub, which is fetched for this) has the hash of its items.  `columns`: as in
    `open_corpus`, because one of them may name the audio.  `memory`: a folder that keeps the hashes of files, so that
    those which have not changed are not read again.
    """
    if ref.startswith(ORGANISM_PREFIX):  # holds its audio, so there is no need to read it
        return hash_file(_manifest_file(ref))
    if ref.startswith((PRESET_PREFIX, HUB_PREFIX)) or not (file := _manifest_file(ref)).is_file():
        return manifest_hash(open_corpus(ref, columns))
    cache_name = hashlib.sha256(canonical_json([str(Path.cwd() / file), dict(columns or {})]).encode()).hexdigest()[:20]
    cache_file = None if cache_folder is None else cache_folder / f"{cache_name}.parquet"

    def other_files() -> list[str]:
        audio = [sample.audio for sample in open_corpus(ref, columns).samples if isinstance(sample.audio, str)]
        return [*([str(file.with_name(QUARANTINE))] if file.name == CORPUS else []), *audio]

    return hashlib.sha256(canonical_json(cached_file_hashes(str(file), other_files, cache_file)).encode()).hexdigest()


def is_local_corpus(ref: str) -> bool:
    """Whether a corpus can be read without a network: it ships, or its file or folder exists."""
    if ref.startswith(PRESET_PREFIX):
        ref = ref.partition("=")[2]
    return ref.startswith(ORGANISM_PREFIX) or (bool(ref) and not ref.startswith(HUB_PREFIX) and Path(ref).exists())


def manifest_hash(manifest: Manifest) -> str:
    """SHA-256 of a corpus as read: its items in order with the hashes of their audio, and its quarantine."""
    digest = hashlib.sha256()
    for sample in manifest.samples:
        audio_hash: str | None = None
        if isinstance(sample.audio, bytes):
            audio_hash = hashlib.sha256(sample.audio).hexdigest()
        elif sample.audio is not None and Path(sample.audio).is_file():
            audio_hash = hash_file(sample.audio)
        fields = {**row_from_sample(replace(sample, audio=None), Path.cwd()), "audio": audio_hash}
        digest.update(f"{canonical_json(fields)}\n".encode())
    digest.update(canonical_json([[item.id, item.reason] for item in manifest.quarantined]).encode())
    return digest.hexdigest()


def corpus_path(ref: str | Path) -> Path:
    """The manifest's file behind `organism:NAME`, a corpus folder or a path."""
    return _manifest_file(str(ref))


def _manifest_file(ref: str) -> Path:
    if ref.startswith(ORGANISM_PREFIX):
        return _organism_path(ref.removeprefix(ORGANISM_PREFIX))
    return Path(ref, CORPUS) if Path(ref, CORPUS).is_file() else Path(ref)


def _organism_path(name: str) -> Path:
    paths = _organism_paths()
    if name not in paths:
        raise UndersongError(f"No organism corpus is called {name!r}; choose from: {', '.join(paths) or 'none'}.")
    return paths[name]


def _organism_paths() -> dict[str, Path]:
    folder = Path(str(resources.files("undersong"))) / "data" / "organism"
    return {path.stem: path for path in sorted(folder.glob("*.parquet"))}


def _named_refs() -> list[str]:
    """What packaged corpora and presets are called by."""
    from undersong.corpora.registry import load_presets

    return [
        *(f"{ORGANISM_PREFIX}{name}" for name in _organism_paths()),
        *(f"{PRESET_PREFIX}{name}" for name in load_presets()),
    ]
