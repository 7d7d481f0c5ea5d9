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

from undersong.corpora.forms.folder import AUDIO
from undersong.corpora.sound.voices import Voice, identity, say
from undersong.store import canonical, write_atomic
from undersong.types import Quarantined, Sample, UndersongError

VERSION = 1
CHUNK = 64  # texts that one process speaks: what a kill of a piper run loses
LABEL = "voice"

Spoken = tuple[tuple[Sample, ...], tuple[Quarantined, ...]]


def speak_texts(
    samples: Sequence[Sample], voices: Sequence[Voice], folder: str | Path, workers: int | None = None
) -> Spoken:
    """Every sample's text in every voice, as FLAC files in `folder`, and those that could not be spoken.

    With several voices an item becomes one a voice, `ID-ENGINE:NAME`, all in one group (its own, or else its id): the
    same words in eleven accents are one question.  `speaker` and the label `voice` say who speaks.  A file that is
    there is not made again.  workers: processes at a time (default: one a CPU).
    UndersongError: an engine, a model or a voice that is not there, ids that clash, samples that are spoken already.
    """
    if not voices or len({voice.label for voice in voices}) < len(voices):
        raise UndersongError("Speaking needs voices, each named once; name some.")
    if spoken := next((sample for sample in samples if sample.audio is not None), None):
        raise UndersongError(f"item {spoken.id!r} is spoken already; leave it out.")
    items, failed = list[tuple[Sample, Voice, Path]](), list[Quarantined]()
    for sample in samples:
        for voice in voices:
            one = _item(sample, voice, len(voices) > 1)
            text = _line(sample.text)
            if not text:
                failed.append(Quarantined(one.id, "there is no text to speak"))
                continue
            named = hashlib.sha256(canonical([VERSION, identity(voice), text]).encode()).hexdigest()[:32]
            items.append((one, voice, Path.cwd() / folder / f"{named}.flac"))
    if len({one.id for one, _, _ in items}) < len(items):
        raise UndersongError("Two items have the same id once the voice is added; rename one.")
    reasons = _make({path: (voice, one.text or "") for one, voice, path in items if not path.is_file()}, workers)
    kept = [replace(one, audio=str(path)) for one, _, path in items if path not in reasons]
    failed += [Quarantined(one.id, reasons[path]) for one, _, path in items if path in reasons]
    return tuple(kept), tuple(failed)


def with_audio(samples: Sequence[Sample], folder: str | Path) -> Spoken:
    """Ready audio of any other voice: the file in `folder` whose path without the suffix is the sample's id.

    Items without a file are set aside.  UndersongError where two files have one id.
    """
    there: dict[str, Path] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() in AUDIO and path.is_file():
            ident = path.relative_to(folder).with_suffix("").as_posix()
            if ident in there:
                raise UndersongError(f"{there[ident]} and {path} are both the audio of {ident!r}; remove one.")
            there[ident] = path
    kept = [replace(sample, audio=str(Path.cwd() / there[sample.id])) for sample in samples if sample.id in there]
    missing = [Quarantined(s.id, f"there is no audio of it in {folder}") for s in samples if s.id not in there]
    return tuple(kept), tuple(missing)


def _line(text: str | None) -> str:
    """A text as engines take it: one line, without the character that would end it early."""
    return " ".join((text or "").replace("\0", " ").split())


def _item(sample: Sample, voice: Voice, several: bool) -> Sample:
    if sample.column(LABEL) is not None:
        raise UndersongError(f"item {sample.id!r} has a label {LABEL!r} already; rename it.")
    labels = tuple(sorted([*sample.labels, (LABEL, voice.label)]))
    ident = f"{sample.id}-{voice.label}" if several else sample.id
    return replace(sample, id=ident, group=sample.cluster, speaker=voice.label, labels=labels)


def _make(wanted: dict[Path, tuple[Voice, str]], workers: int | None) -> dict[Path, str]:
    """Speak into the files; returns why some could not be.  Threads wait for processes, which do the work."""
    by_voice: dict[Voice, list[tuple[Path, str]]] = {}
    for path, (voice, text) in wanted.items():
        by_voice.setdefault(voice, []).append((path, text))
    jobs = [(v, todo[i : i + CHUNK]) for v, todo in by_voice.items() for i in range(0, len(todo), CHUNK)]
    count = workers if workers is not None else os.cpu_count() or 1
    reasons: dict[Path, str] = {}
    if not jobs:
        return reasons
    with ThreadPoolExecutor(max(1, min(count, len(jobs)))) as pool:
        for failures in pool.map(_spoken, jobs):
            reasons |= failures
    return reasons


def _spoken(job: tuple[Voice, list[tuple[Path, str]]]) -> dict[Path, str]:
    voice, todo = job
    reasons: dict[Path, str] = {}
    for (path, _), answer in zip(todo, say(voice, [_line(text) for _, text in todo])):
        if isinstance(answer, bytes):
            write_atomic(path, answer)
        else:
            reasons[path] = answer
    return reasons
