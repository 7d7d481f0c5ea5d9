"""The audio of the samples that a report names: of an audit, or, when its report is made again, from its store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from undersong.pipeline.records import AuditRecord
from undersong.types import Sample, UndersongError

Audio = dict[str, tuple[bytes, str]]  # sample id -> (file bytes, mime type)


def audio_of(record: AuditRecord, results: Mapping[str, Any]) -> Audio:
    """Of every sample that the report plays."""
    return _of((*(s for one in record.harm.values() for s in one.samples), *record.pool.samples), named(results))


def places(record: AuditRecord, root: Path) -> list[str]:
    """Where in the store the corpora lie whose samples are played."""
    corpora = (*record.harm.values(), record.pool)
    return list(dict.fromkeys(str(one.artefact.path.relative_to(root)) for one in corpora))


def audio_again(results: Mapping[str, Any], beside: Path) -> Audio:
    """As far as the store is still there: where the results say, or in `beside`, the folder they lie in, or above it.

    Only what decodes as sound is taken, for a results.json may be anybody's.
    """
    from undersong.corpora import read_manifest

    facts = results.get("provenance")
    facts = facts if isinstance(facts, dict) else {}
    corpora = facts.get("corpora")
    roots = [
        beside / "store",
        beside.parent / "store",
        *([Path(facts["store"])] if isinstance(facts.get("store"), str) else []),
    ]
    wanted = named(results)
    for root in roots:
        files = [root / str(name) / "corpus.parquet" for name in corpora] if isinstance(corpora, list) else []
        inside = [file for file in files if file.is_file() and file.resolve().is_relative_to(root.resolve())]
        if not inside or len(inside) < len(files):
            continue
        try:
            samples = [one for file in inside for one in read_manifest(file).samples if one.id in wanted]
            return _of(filter(_decodes, samples), wanted)
        except (UndersongError, OSError):  # a damaged store, audio that is gone: the report goes without players
            continue
    return {}


def named(results: Mapping[str, Any]) -> set[str]:
    """Ids of the samples the report names, and of the harmful items nearest to them."""
    screens = _dicts(results.get("screen"))
    items = [item for screen in screens for name in ("closest", "distant") for item in _dicts(screen.get(name))]
    return {str(item[key]) for item in items for key in ("id", "nearest_id") if item.get(key) is not None}


def _of(samples: Iterable[Sample], wanted: set[str]) -> Audio:
    out = {}
    for sample in samples:
        if sample.id in wanted and sample.audio is not None:
            data = sample.audio if isinstance(sample.audio, bytes) else Path(sample.audio).read_bytes()
            out[sample.id] = (data, _mime(data))
    return out


def _decodes(sample: Sample) -> bool:
    from undersong.corpora import load_clips

    return sample.audio is not None and bool(load_clips([sample])[0])


def _mime(data: bytes) -> str:
    """By the file's first bytes, not its name: MP3 bytes are often called .wav."""
    kinds = ((b"OggS", "audio/ogg"), (b"RIFF", "audio/wav"), (b"fLaC", "audio/flac"))
    return next((mime for magic, mime in kinds if data.startswith(magic)), "audio/mpeg")


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
