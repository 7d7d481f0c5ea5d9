"""Audio of the samples that a report names, taken from an audit's records or, when a report is rendered again, from its
store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from undersong.results.records import AuditRecord
from undersong.types import Sample, UndersongError

PlayableAudio = dict[str, tuple[bytes, str]]  # sample id -> (file bytes, mime type)


def collect_report_audio(record: AuditRecord, results: Mapping[str, Any]) -> PlayableAudio:
    """Audio of every sample that the report plays."""
    return _read_audio(
        (*(sample for corpus in record.harm.values() for sample in corpus.samples), *record.pool.samples),
        named_sample_ids(results),
    )


def played_corpus_paths(record: AuditRecord, root: Path) -> list[str]:
    """Paths in the store of the corpora whose samples are played."""
    corpora = (*record.harm.values(), record.pool)
    return list(dict.fromkeys(str(corpus.artifact.path.relative_to(root)) for corpus in corpora))


def reload_report_audio(results: Mapping[str, Any], report_folder: Path) -> PlayableAudio:
    """Audio from the store, if it still exists: where the results say, or next to or above `report_folder`.

    Only files that decode as audio are used, because a results.json may come from anybody.
    """
    from undersong.corpora import read_manifest

    provenance = results.get("provenance")
    provenance = provenance if isinstance(provenance, dict) else {}
    corpora = provenance.get("corpora")
    roots = [
        report_folder / "store",
        report_folder.parent / "store",
        *([Path(provenance["store"])] if isinstance(provenance.get("store"), str) else []),
    ]
    wanted = named_sample_ids(results)
    for root in roots:
        corpus_files = [root / str(name) / "corpus.parquet" for name in corpora] if isinstance(corpora, list) else []
        present_files = [
            file for file in corpus_files if file.is_file() and file.resolve().is_relative_to(root.resolve())
        ]
        if not present_files or len(present_files) < len(corpus_files):
            continue
        try:
            samples = [
                sample for file in present_files for sample in read_manifest(file).samples if sample.id in wanted
            ]
            return _read_audio(filter(_is_decodable, samples), wanted)
        except (UndersongError, OSError):  # a damaged store or missing audio: the report has no players
            continue
    return {}


def named_sample_ids(results: Mapping[str, Any]) -> set[str]:
    """Ids of the samples that the report names, and of the harmful items nearest to them."""
    screens = _dict_items(results.get("screen"))
    items = [item for screen in screens for name in ("closest", "distant") for item in _dict_items(screen.get(name))]
    return {str(item[key]) for item in items for key in ("id", "nearest_id") if item.get(key) is not None}


def _read_audio(samples: Iterable[Sample], wanted: set[str]) -> PlayableAudio:
    audio_files = {}
    for sample in samples:
        if sample.id in wanted and sample.audio is not None:
            data = sample.audio if isinstance(sample.audio, bytes) else Path(sample.audio).read_bytes()
            audio_files[sample.id] = (data, _mime_type(data))
    return audio_files


def _is_decodable(sample: Sample) -> bool:
    from undersong.corpora import load_clips

    return sample.audio is not None and bool(load_clips([sample])[0])


def _mime_type(data: bytes) -> str:
    """MIME type by the file's first bytes, not its name: MP3 files are often called .wav."""
    kinds = ((b"OggS", "audio/ogg"), (b"RIFF", "audio/wav"), (b"fLaC", "audio/flac"))
    return next((mime for magic, mime in kinds if data.startswith(magic)), "audio/mpeg")


def _dict_items(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
