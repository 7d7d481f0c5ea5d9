"""Audio of the samples that a report names, taken from an audit's records or, when a report is rendered again, from its
store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from undersong.results.schema import Results
from undersong.study.results.records import AuditRecord
from undersong.types import Sample, UndersongError

PlayableAudio = dict[str, tuple[bytes, str]]  # sample id -> (file bytes, mime type)


def collect_report_audio(record: AuditRecord, results: Results) -> PlayableAudio:
    """Return the audio of every sample that the report plays."""
    corpora = (*record.harm.values(), *record.sets.values(), record.pool)
    return _read_audio((sample for corpus in corpora for sample in corpus.samples), named_sample_ids(results))


def played_corpus_paths(record: AuditRecord, root: Path) -> list[str]:
    """Paths in the store of the corpora whose samples are played."""
    corpora = (*record.harm.values(), *record.sets.values(), record.pool)
    return list(dict.fromkeys(str(corpus.artifact.location.relative_to(root)) for corpus in corpora))


def reload_report_audio(results: Results, report_folder: Path) -> PlayableAudio:
    """Return the audio of the samples that a report plays, as far as their store still exists.

    The store is searched in the report's folder, in the folder above it, and at the path in the results. Only files
    that decode as audio are used, because a results.json can come from an untrusted source.
    """
    from undersong.corpora.manifest import read_manifest

    if results.provenance is None:
        return {}
    corpora = results.provenance.corpora
    roots = [report_folder / "store", report_folder.parent / "store", Path(results.provenance.store)]
    wanted = named_sample_ids(results)
    for root in roots:
        corpus_files = [root / name / "corpus.parquet" for name in corpora]
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
        except (UndersongError, OSError, ValueError):  # a damaged store or missing audio: the report has no players
            continue
    return {}


def named_sample_ids(results: Results) -> set[str]:
    """Ids of the samples the report names, of their nearest harmful items, and of prompts with example replies."""
    pairs = [pair for screening in results.screening for pair in (*screening.closest, *screening.distant)]
    named = {id for pair in pairs for id in (pair.id, pair.nearest_id) if id is not None}
    return named | {example.prompt_id for example in results.examples}


def _read_audio(samples: Iterable[Sample], wanted: set[str]) -> PlayableAudio:
    """Read the audio of the wanted samples. An id that two corpora give to different clips gets none of them."""
    from undersong.corpora.decode import file_bytes

    audio_files: PlayableAudio = {}
    ambiguous = set[str]()
    for sample in samples:
        if sample.id in wanted and sample.audio is not None:
            data = file_bytes(sample)
            if audio_files.setdefault(sample.id, (data, _mime_type(data)))[0] != data:
                ambiguous.add(sample.id)
    return {id: file for id, file in audio_files.items() if id not in ambiguous}


def _is_decodable(sample: Sample) -> bool:
    from undersong.corpora.decode import load_clips

    return sample.audio is not None and bool(load_clips([sample])[0])


def _mime_type(data: bytes) -> str:
    """MIME type by the file's first bytes, not its name: MP3 files are often called .wav."""
    kinds = ((b"OggS", "audio/ogg"), (b"RIFF", "audio/wav"), (b"fLaC", "audio/flac"))
    return next((mime for magic, mime in kinds if data.startswith(magic)), "audio/mpeg")
