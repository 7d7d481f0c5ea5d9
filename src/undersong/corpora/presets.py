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

from undersong.corpora.forms.folder import SPLIT
from undersong.corpora.forms.manifest import Manifest, select
from undersong.corpora.forms.opening import HUB, open_manifest
from undersong.hints import meant
from undersong.types import Quarantined, Sample, UndersongError

ROLES = ("pool", "harm", "over-refusal", "utility")
ENDINGS = (".parquet", ".jsonl", ".json", ".csv", ".tsv")


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
def known_presets() -> Mapping[str, Preset]:
    """All presets by id, in the file's order."""
    import yaml

    text = resources.files("undersong.corpora").joinpath("presets.yaml").read_text(encoding="utf-8")
    rows = yaml.safe_load(text)
    return {name: Preset(id=name, **{**row, "splits": tuple(row.get("splits", ()))}) for name, row in rows.items()}


def preset(ident: str) -> Preset:
    """A preset by id; UndersongError lists those there are."""
    known = known_presets()
    if ident not in known:
        raise UndersongError(f"No preset is called {ident!r}; {meant(ident, known)}.")
    return known[ident]


def open_preset(
    ident: str, path: str | Path | None = None, into: str | Path | None = None, root: str | Path | None = None
) -> Manifest:
    """The corpus of a preset: from its place on the Hub, or from a local copy at `path`.

    A local copy is one file in any form `open_manifest` reads, a folder that is a corpus, or a folder with one file a
    split (`aus-00000-of-00001.parquet`, `snarks.json`); their columns are those of the original files, or those of the
    Hub.  An item's split becomes a label where the preset names one, and the beginning of its id.
    into: audio from the Hub goes to files there.  root: as in `open_manifest`.
    UndersongError: no such preset, no such place, columns of neither layout.
    """
    known = preset(ident)
    if path is None:
        if known.hub is None:
            raise UndersongError(f"Preset {ident!r} is not on the Hub; fetch {known.url} and give its path.")
        opened = [(split, _from_hub(known, split, into)) for split in known.splits or ("train",)]
    else:
        opened = [(split, _from_file(known, place, root)) for split, place in _local_parts(known, Path(path))]
    samples, quarantined = list[Sample](), list[Quarantined]()
    for split, manifest in opened:
        samples += (_placed(sample, known, split if len(opened) > 1 else None) for sample in manifest.samples)
        quarantined += manifest.quarantined
    if len({sample.id for sample in samples}) < len(samples):
        raise UndersongError(f"Preset {ident!r} repeats an id in {path or known.hub}; give one of its splits as path.")
    kept = select(samples, known.where) if known.where else tuple(samples)
    return Manifest(kept, tuple(quarantined), opened[0][1].root, f"preset:{ident}")


def remark(known: Preset, manifest: Manifest) -> str | None:
    """What is not as expected of a preset's corpus, to be shown and not decided here; None where all is."""
    found = len(manifest.samples) + len(manifest.quarantined)
    if found != known.items:
        return f"Preset {known.id!r} has {found} items here and {known.items} where it was described."
    return None


def _from_hub(known: Preset, split: str, into: str | Path | None) -> Manifest:
    options = {"config": known.config, "split": split, "into": str(into) if into else None}
    query = urlencode({name: value for name, value in options.items() if value})
    return open_manifest(f"{HUB}{known.hub}?{query}", columns=known.columns)


def _from_file(known: Preset, place: Path, root: str | Path | None) -> Manifest:
    """By the original files' columns, or else by the Hub's; the first error is told if neither fits."""
    maps = [known.columns] if known.local is None else [known.local, known.columns]
    errors: list[UndersongError] = []
    for columns in maps:
        try:
            return open_manifest(place, columns=columns, root=root)
        except UndersongError as error:
            errors.append(error)
    raise errors[0]


def _local_parts(known: Preset, path: Path) -> Iterator[tuple[str, Path]]:
    """(split, file) of each split that has a file of its own in a folder; else the path as one corpus."""
    found = list[tuple[str, Path]]()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            shard = SPLIT.fullmatch(file.name)
            name = shard[1] if shard else file.stem
            if name in known.splits and file.suffix in ENDINGS:
                found.append((name, file))
    if path.is_dir() and not found and (files := [file for file in sorted(path.iterdir()) if file.suffix in ENDINGS]):
        found = [(known.splits[0] if known.splits else "", file) for file in files[:1] if len(files) == 1]
    return iter(found or [("", path)])


def _placed(sample: Sample, known: Preset, split: str | None) -> Sample:
    """The sample with its split as label and, where several splits are one corpus, before its id."""
    if split is None:
        return sample
    label = () if known.part is None or sample.column(known.part) is not None else ((known.part, split),)
    ident = sample.id if sample.id.startswith(f"{split}-") else f"{split}-{sample.id}"
    return replace(sample, id=ident, labels=tuple(sorted([*sample.labels, *label])))
