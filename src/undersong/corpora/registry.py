"""Known corpora by id: where they are, how their columns are called, what may be expected (in presets.yaml).

Knows names and layouts; brings no data along.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from urllib.parse import urlencode

from undersong.corpora.audio_folder import SPLIT_FILE_NAME
from undersong.corpora.formats import HUB_PREFIX, open_manifest
from undersong.corpora.manifest import Manifest, filter_samples
from undersong.suggestions import suggest
from undersong.types import Quarantined, Sample, UndersongError

ROLES = ("pool", "harm", "over-refusal", "utility")
TABLE_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Preset:
    """One row of presets.yaml; see its head for the fields."""

    id: str
    title: str
    role: str
    columns: Mapping[str, str]
    licence: str
    items: int
    used: str
    notes: str
    verified: bool
    hub: str | None = None
    url: str | None = None
    config: str | None = None
    splits: tuple[str, ...] = ()
    part: str | None = None
    local: Mapping[str, str] | None = None
    where: Mapping[str, str] = field(default_factory=dict)


@cache
def load_presets() -> Mapping[str, Preset]:
    """All presets by id, in the file's order."""
    import yaml

    text = resources.files("undersong.corpora").joinpath("presets.yaml").read_text(encoding="utf-8")
    rows = yaml.safe_load(text)
    return {name: Preset(id=name, **{**row, "splits": tuple(row.get("splits", ()))}) for name, row in rows.items()}


def get_preset(preset_id: str) -> Preset:
    """A preset by id; UndersongError lists those there are."""
    presets = load_presets()
    if preset_id not in presets:
        raise UndersongError(f"No preset is called {preset_id!r}; {suggest(preset_id, presets)}.")
    return presets[preset_id]


def open_preset(
    preset_id: str,
    path: str | Path | None = None,
    audio_folder: str | Path | None = None,
    root: str | Path | None = None,
) -> Manifest:
    """The corpus of a preset: from its place on the Hub, or from a local copy at `path`.

    A local copy is one file in any form `open_manifest` reads, a folder that is a corpus, or a folder with one file a
    split (`aus-00000-of-00001.parquet`, `snarks.json`); their columns are those of the original files, or those of the
    Hub.  An item's split becomes a label where the preset names one, and the beginning of its id.
    into: audio from the Hub goes to files there.  root: as in `open_manifest`.
    UndersongError: no such preset, no such place, columns of neither layout.
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
    filtered = filter_samples(samples, preset.where) if preset.where else tuple(samples)
    return Manifest(filtered, tuple(quarantined), parts[0][1].root, f"preset:{preset_id}")


def preset_size_warning(preset: Preset, manifest: Manifest) -> str | None:
    """What is not as expected of a preset's corpus, to be shown and not decided here; None where all is."""
    item_count = len(manifest.samples) + len(manifest.quarantined)
    if item_count != preset.items:
        return f"Preset {preset.id!r} has {item_count} items here and {preset.items} where it was described."
    return None


def _open_from_hub(preset: Preset, split: str, audio_folder: str | Path | None) -> Manifest:
    options = {"config": preset.config, "split": split, "into": str(audio_folder) if audio_folder else None}
    query = urlencode({name: value for name, value in options.items() if value})
    return open_manifest(f"{HUB_PREFIX}{preset.hub}?{query}", columns=preset.columns)


def _open_local(preset: Preset, path: Path, root: str | Path | None) -> Manifest:
    """By the original files' columns, or else by the Hub's; the first error is told if neither fits."""
    maps = [preset.columns] if preset.local is None else [preset.local, preset.columns]
    errors: list[UndersongError] = []
    for columns in maps:
        try:
            return open_manifest(path, columns=columns, root=root)
        except UndersongError as error:
            errors.append(error)
    raise errors[0]


def _local_split_files(preset: Preset, path: Path) -> Iterator[tuple[str, Path]]:
    """(split, file) of each split that has a file of its own in a folder; else the path as one corpus."""
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


def _with_split(sample: Sample, preset: Preset, split: str | None) -> Sample:
    """The sample with its split as label and, where several splits are one corpus, before its id."""
    if split is None:
        return sample
    label = () if preset.part is None or sample.column(preset.part) is not None else ((preset.part, split),)
    sample_id = sample.id if sample.id.startswith(f"{split}-") else f"{split}-{sample.id}"
    return replace(sample, id=sample_id, labels=tuple(sorted([*sample.labels, *label])))
