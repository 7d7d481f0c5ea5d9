"""Corpora by reference (`organism:NAME`, `shipped:NAME`, `mini:NAME`, `preset:ID`, `hf:NAME` or a path): opening,
hashing, and the presets of presets.yaml.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from urllib.parse import urlencode

from undersong.checkout import find_checkout_folder
from undersong.corpora.audio_folder import SPLIT_FILE_NAME
from undersong.corpora.column_names import ColumnReading
from undersong.corpora.formats import HUB_PREFIX, column_reading, open_manifest
from undersong.corpora.manifest import CORPUS, QUARANTINE, Manifest, filter_samples, read_manifest
from undersong.corpora.rows import row_from_sample
from undersong.store.hashing import cached_file_hashes, canonical_json, hash_file
from undersong.suggestions import did_you_mean
from undersong.types import Quarantined, Sample, UndersongError

ORGANISM_PREFIX, SHIPPED_PREFIX, PRESET_PREFIX = "organism:", "shipped:", "preset:"
MINI_PREFIX, MINI_FOLDER, MINI_FILE = "mini:", "mini_demo", "pool.parquet"  # the spoken set in a checkout's `models`
PACKAGED_PREFIXES = (ORGANISM_PREFIX, SHIPPED_PREFIX, MINI_PREFIX)  # each names a folder of files with their audio
CORPUS_NAME = re.compile(r"(?!hf:)[\w:-]+")  # a name rather than a path


def open_corpus(ref: str, columns: Mapping[str, str] | None = None, root: str | Path | None = None) -> Manifest:
    """Open the corpus of `organism:NAME`, `shipped:NAME`, `mini:NAME`, `preset:ID` (`preset:ID=PATH` for a local copy),
    `hf:…` or a path.

    `columns` and `root` are those of `open_manifest`. Packaged corpora and presets have their own columns.
    """
    if columns and ref.startswith((*PACKAGED_PREFIXES, PRESET_PREFIX)):
        raise UndersongError(f"{ref} has its own column names; leave the column map out.")
    if ref.startswith(PACKAGED_PREFIXES):
        return read_manifest(_manifest_file(ref))
    if ref.startswith(PRESET_PREFIX):
        name, _, path = ref.removeprefix(PRESET_PREFIX).partition("=")
        return open_preset(name, path or None, root=root)
    check_corpus_ref(ref)
    from undersong.corpora.formats import open_manifest

    return open_manifest(ref, columns=columns, root=root)


def check_corpus_named(ref: str) -> None:
    """Raise UndersongError for a blank reference, as of a variable that is not set: its path is the current folder."""
    if not ref.strip():
        raise UndersongError("No data is named (the name is empty); name a file or a folder, `.` for this one.")


def check_corpus_ref(ref: str) -> None:
    """Raise UndersongError for a blank reference, and for one that does not exist and is nearly a known name."""
    check_corpus_named(ref)
    if is_local_corpus(ref) or not CORPUS_NAME.fullmatch(ref) or ref in (refs := _named_refs()):
        return
    # A word without a prefix is a corpus of the organisms or a preset; Mini's have the same names behind a shorter one.
    candidates = [name for name in refs if ref.startswith(MINI_PREFIX) or not name.startswith(MINI_PREFIX)]
    if hint := did_you_mean(ref, candidates):
        raise UndersongError(f"There is no manifest {ref}{hint}")


def corpus_hash(ref: str, columns: Mapping[str, str] | None = None, cache_folder: Path | None = None) -> str:
    """SHA-256 of everything that a corpus is read from: the bytes of the manifest and of every audio file that it
    names.

    A missing file counts as missing, so the hash changes when it appears. A corpus that is not a single file (a folder
    of audio, a preset, a data set of the Hub, which is downloaded for this) has the hash of its items. `columns` are
    those of `open_corpus`, because one of them may name the audio. `cache_folder` keeps the hashes of files, so that
    unchanged files are not read again.
    """
    if ref.startswith(PACKAGED_PREFIXES):  # the file contains its audio
        return hash_file(_manifest_file(ref))
    if ref.startswith((PRESET_PREFIX, HUB_PREFIX)) or not (file := _manifest_file(ref)).is_file():
        return manifest_hash(open_corpus(ref, columns))
    cache_name = hashlib.sha256(canonical_json([str(Path.cwd() / file), dict(columns or {})]).encode()).hexdigest()[:20]
    cache_file = None if cache_folder is None else cache_folder / f"{cache_name}.parquet"

    def other_files() -> list[str]:
        audio = [sample.audio for sample in open_corpus(ref, columns).samples if isinstance(sample.audio, str)]
        return [*([str(file.with_name(QUARANTINE))] if file.name == CORPUS else []), *audio]

    return hashlib.sha256(canonical_json(cached_file_hashes(str(file), other_files, cache_file)).encode()).hexdigest()


def corpus_columns(ref: str, columns: Mapping[str, str] | None = None) -> ColumnReading:
    """Read the column map that `open_corpus` uses for a local file, by its first rows; other corpora keep theirs."""
    file = Path(ref)
    if ref.startswith((*PACKAGED_PREFIXES, PRESET_PREFIX, HUB_PREFIX)) or not file.is_file():
        return ColumnReading(dict(columns or {}))
    return column_reading(file, columns or {})


def is_local_corpus(ref: str) -> bool:
    """True if a corpus can be read without a network: it is packaged, or its file or folder exists."""
    if ref.startswith(PRESET_PREFIX):
        ref = ref.partition("=")[2]
    return ref.startswith(PACKAGED_PREFIXES) or (bool(ref) and not ref.startswith(HUB_PREFIX) and Path(ref).exists())


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


def _manifest_file(ref: str) -> Path:
    if ref.startswith(PACKAGED_PREFIXES):
        return _packaged_path(ref)
    return Path(ref, CORPUS) if Path(ref, CORPUS).is_file() else Path(ref)


def _packaged_path(ref: str) -> Path:
    folder, _, name = ref.partition(":")
    paths = _packaged_paths(folder)
    if not paths:
        raise UndersongError(
            f"The installed package does not hold {ref}; go to a checkout of undersong, which has it in "
            f"models/{MINI_FOLDER}."
        )
    if name not in paths:
        raise UndersongError(f"No {folder} corpus is called {name!r}; choose from: {', '.join(paths)}.")
    return paths[name]


def _packaged_paths(folder_name: str) -> dict[str, Path]:
    if folder_name == MINI_PREFIX.removesuffix(":"):
        folder = find_checkout_folder(MINI_FOLDER, MINI_FILE)
        if folder is None:
            return {}
    else:
        folder = Path(str(resources.files("undersong"))) / "data" / folder_name
    return {path.stem: path for path in sorted(folder.glob("*.parquet"))}


def _named_refs() -> list[str]:
    """References of all packaged corpora and presets."""
    return [
        *(f"{prefix}{name}" for prefix in PACKAGED_PREFIXES for name in _packaged_paths(prefix.removesuffix(":"))),
        *(f"{PRESET_PREFIX}{name}" for name in load_presets()),
    ]


MIN_PRESET_SIMILARITY = 0.6  # short names are soon half alike: xyz and bbh
ROLES = ("pool", "harm", "over-refusal", "utility")
TABLE_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Preset:
    """One entry of presets.yaml; the head of that file describes the fields."""

    id: str
    title: str
    role: str
    columns: Mapping[str, str]
    license: str
    items: int | None  # None: not known
    usage: str
    notes: str
    verified: bool
    hub: str | None = None
    url: str | None = None
    config: str | None = None
    splits: tuple[str, ...] = ()
    split_label: str | None = None
    local_columns: Mapping[str, str] | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    id_labels: Mapping[str, Sequence[str]] = field(default_factory=dict)


@cache
def load_presets() -> Mapping[str, Preset]:
    """All presets by id, in the file's order."""
    import yaml

    text = resources.files("undersong.corpora").joinpath("presets.yaml").read_text(encoding="utf-8")
    rows = yaml.safe_load(text)
    return {name: Preset(id=name, **{**row, "splits": tuple(row.get("splits", ()))}) for name, row in rows.items()}


def get_preset(preset_id: str) -> Preset:
    """The preset with this id. Raises UndersongError with the known ids."""
    presets = load_presets()
    if preset_id not in presets:
        hint = did_you_mean(preset_id, presets, MIN_PRESET_SIMILARITY) or "; `undersong presets` lists them."
        raise UndersongError(f"No preset is called {preset_id!r}{hint}")
    return presets[preset_id]


def open_preset(
    preset_id: str,
    path: str | Path | None = None,
    audio_folder: str | Path | None = None,
    root: str | Path | None = None,
) -> Manifest:
    """Open the corpus of a preset, from the Hub or from a local copy.

    A local copy is one file in any format of `open_manifest`, a folder that is a corpus, or a folder with one file per
    split (`aus-00000-of-00001.parquet`, `snarks.json`). Its columns are those of the original files or those of the
    Hub. The split of an item becomes a prefix of its id, and a label if the preset names one.

    Args:
        preset_id: Id in presets.yaml.
        path: Local copy; None: the Hub.
        audio_folder: Folder for audio files from the Hub.
        root: As in `open_manifest`.

    Raises:
        UndersongError: No such preset, no such path, or columns of neither layout.
    """
    preset = get_preset(preset_id)
    if path is None:
        if preset.hub is None:
            raise UndersongError(f"Preset {preset_id!r} is not on the Hub; fetch {preset.url} and give its path.")
        parts = [(split, _open_from_hub(preset, split, audio_folder)) for split in preset.splits or ("train",)]
    else:
        parts = [
            (split, _open_local(preset, part_path, root)) for split, part_path in _local_split_files(preset, Path(path))
        ]
    samples, quarantined = list[Sample](), list[Quarantined]()
    for split, manifest in parts:
        samples += (_with_split(sample, preset, split if len(parts) > 1 else None) for sample in manifest.samples)
        quarantined += manifest.quarantined
    if len({sample.id for sample in samples}) < len(samples):
        raise UndersongError(
            f"Preset {preset_id!r} repeats an id in {path or preset.hub}; give one of its splits as path."
        )
    samples = [_with_id_labels(sample, preset) for sample in samples]
    filtered = filter_samples(samples, preset.filters) if preset.filters else tuple(samples)
    return Manifest(filtered, tuple(quarantined), parts[0][1].root, f"preset:{preset_id}")


def preset_size_warning(preset: Preset, manifest: Manifest) -> str | None:
    """Warning that a preset's corpus has another number of items than described; None if it has the same, or if none
    is described.
    """
    item_count = len(manifest.samples) + len(manifest.quarantined)
    if preset.items is not None and item_count != preset.items:
        return f"Preset {preset.id!r} has {item_count} items here and {preset.items} where it was described."
    return None


def _open_from_hub(preset: Preset, split: str, audio_folder: str | Path | None) -> Manifest:
    options = {"config": preset.config, "split": split, "into": str(audio_folder) if audio_folder else None}
    query = urlencode({name: value for name, value in options.items() if value})
    return open_manifest(f"{HUB_PREFIX}{preset.hub}?{query}", columns=preset.columns, known_names=False)


def _open_local(preset: Preset, path: Path, root: str | Path | None) -> Manifest:
    """Open by the columns of the original files, or else by those of the Hub; raise the first error if neither fits."""
    maps = [preset.columns] if preset.local_columns is None else [preset.local_columns, preset.columns]
    errors: list[UndersongError] = []
    for columns in maps:
        try:
            return open_manifest(path, columns=columns, root=root, known_names=False)
        except UndersongError as error:
            errors.append(error)
    raise errors[0]


def _local_split_files(preset: Preset, path: Path) -> Iterator[tuple[str, Path]]:
    """(split, file) of each split that has its own file in a folder; else the path as one corpus."""
    split_files = list[tuple[str, Path]]()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            shard_match = SPLIT_FILE_NAME.fullmatch(file.name)
            name = shard_match[1] if shard_match else file.stem
            if name in preset.splits and file.suffix in TABLE_SUFFIXES:
                split_files.append((name, file))
    if (
        path.is_dir()
        and not split_files
        and (files := [file for file in sorted(path.iterdir()) if file.suffix in TABLE_SUFFIXES])
    ):
        split_files = [(preset.splits[0] if preset.splits else "", file) for file in files[:1] if len(files) == 1]
    return iter(split_files or [("", path)])


def _with_id_labels(sample: Sample, preset: Preset) -> Sample:
    """Add the labels that the preset says an id holds, such as `task`; a column of the sample's own comes first."""
    labels = [
        (name, value)
        for name, values in preset.id_labels.items()
        if sample.column(name) is None
        for value in values
        if value in sample.id
    ]
    return replace(sample, labels=(*sample.labels, *labels)) if labels else sample


def _with_split(sample: Sample, preset: Preset, split: str | None) -> Sample:
    """Add the split to a sample as a label and, if several splits form one corpus, as a prefix of its id."""
    if split is None:
        return sample
    name = preset.split_label
    label = () if name is None or sample.column(name) is not None else ((name, split),)
    sample_id = sample.id if sample.id.startswith(f"{split}-") else f"{split}-{sample.id}"
    return replace(sample, id=sample_id, labels=tuple(sorted([*sample.labels, *label])))
