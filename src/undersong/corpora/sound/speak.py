"""Written items as spoken ones: spoken here by an engine, or brought along as audio files named by id.

Files are named by what decides how they sound, written once, whole or not at all: a killed run goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from undersong.corpora.audio_folder import AUDIO_SUFFIXES
from undersong.corpora.tts import Voice, synthesize, voice_identity
from undersong.store import canonical_json, write_atomic
from undersong.types import Quarantined, Sample, UndersongError

SPEECH_VERSION = 1
CHUNK_TEXTS = 64  # texts that one process speaks: what a kill of a piper run loses
VOICE_LABEL = "voice"

SpokenSamples = tuple[tuple[Sample, ...], tuple[Quarantined, ...]]


def synthesize_speech(
    samples: Sequence[Sample], voices: Sequence[Voice], folder: str | Path, workers: int | None = None
) -> SpokenSamples:
    """Every sample's text in every voice, as FLAC files in `folder`, and those that could not be spoken.

    With several voices an item becomes one a voice, `ID-ENGINE:NAME`, all in one group (its own, or else its id): the
    same words in eleven accents are one question.  `speaker` and the label `voice` say who speaks.  A file that is
    there is not made again.  workers: processes at a time (default: one a CPU).
    UndersongError: an engine, a model or a voice that is not there, ids that clash, samples that are spoken already.
    """
    if not voices or len({voice.label for voice in voices}) < len(voices):
        raise UndersongError("Speaking needs voices, each named once; name some.")
    if sample_with_audio := next((sample for sample in samples if sample.audio is not None), None):
        raise UndersongError(f"item {sample_with_audio.id!r} is spoken already; leave it out.")
    items, failed = list[tuple[Sample, Voice, Path]](), list[Quarantined]()
    for sample in samples:
        for voice in voices:
            item = _spoken_item(sample, voice, len(voices) > 1)
            text = _single_line(sample.text)
            if not text:
                failed.append(Quarantined(item.id, "there is no text to speak"))
                continue
            file_stem = hashlib.sha256(
                canonical_json([SPEECH_VERSION, voice_identity(voice), text]).encode()
            ).hexdigest()[:32]
            items.append((item, voice, Path.cwd() / folder / f"{file_stem}.flac"))
    if len({item.id for item, _, _ in items}) < len(items):
        raise UndersongError("Two items have the same id once the voice is added; rename one.")
    reasons = _synthesize_files(
        {path: (voice, item.text or "") for item, voice, path in items if not path.is_file()}, workers
    )
    spoken_samples = [replace(item, audio=str(path)) for item, _, path in items if path not in reasons]
    failed += [Quarantined(item.id, reasons[path]) for item, _, path in items if path in reasons]
    return tuple(spoken_samples), tuple(failed)


def with_audio(samples: Sequence[Sample], folder: str | Path) -> SpokenSamples:
    """Ready audio of any other voice: the file in `folder` whose path without the suffix is the sample's id.

    Items without a file are set aside.  UndersongError where two files have one id.
    """
    audio_paths: dict[str, Path] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
            sample_id = path.relative_to(folder).with_suffix("").as_posix()
            if sample_id in audio_paths:
                raise UndersongError(
                    f"{audio_paths[sample_id]} and {path} are both the audio of {sample_id!r}; remove one."
                )
            audio_paths[sample_id] = path
    with_files = [
        replace(sample, audio=str(Path.cwd() / audio_paths[sample.id]))
        for sample in samples
        if sample.id in audio_paths
    ]
    missing = [
        Quarantined(sample.id, f"there is no audio of it in {folder}")
        for sample in samples
        if sample.id not in audio_paths
    ]
    return tuple(with_files), tuple(missing)


def _single_line(text: str | None) -> str:
    """A text as engines take it: one line, without the character that would end it early."""
    return " ".join((text or "").replace("\0", " ").split())


def _spoken_item(sample: Sample, voice: Voice, voice_in_id: bool) -> Sample:
    if sample.column(VOICE_LABEL) is not None:
        raise UndersongError(f"item {sample.id!r} has a label {VOICE_LABEL!r} already; rename it.")
    labels = tuple(sorted([*sample.labels, (VOICE_LABEL, voice.label)]))
    sample_id = f"{sample.id}-{voice.label}" if voice_in_id else sample.id
    return replace(sample, id=sample_id, group=sample.cluster, speaker=voice.label, labels=labels)


def _synthesize_files(texts_by_path: dict[Path, tuple[Voice, str]], workers: int | None) -> dict[Path, str]:
    """Speak into the files; returns why some could not be.  Threads wait for processes, which do the work."""
    by_voice: dict[Voice, list[tuple[Path, str]]] = {}
    for path, (voice, text) in texts_by_path.items():
        by_voice.setdefault(voice, []).append((path, text))
    jobs = [
        (voice, entries[i : i + CHUNK_TEXTS])
        for voice, entries in by_voice.items()
        for i in range(0, len(entries), CHUNK_TEXTS)
    ]
    worker_count = workers if workers is not None else os.cpu_count() or 1
    reasons: dict[Path, str] = {}
    if not jobs:
        return reasons
    with ThreadPoolExecutor(max(1, min(worker_count, len(jobs)))) as pool:
        for failures in pool.map(_synthesize_chunk, jobs):
            reasons |= failures
    return reasons


def _synthesize_chunk(job: tuple[Voice, list[tuple[Path, str]]]) -> dict[Path, str]:
    voice, entries = job
    reasons: dict[Path, str] = {}
    for (path, _), result in zip(entries, synthesize(voice, [_single_line(text) for _, text in entries])):
        if isinstance(result, bytes):
            write_atomic(path, result)
        else:
            reasons[path] = result
    return reasons
