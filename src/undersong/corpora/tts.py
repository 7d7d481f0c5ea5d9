"""Text-to-speech voices and engines (espeak-ng, piper, flite), and conversion of text samples to spoken samples."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from undersong.corpora.audio_folder import AUDIO_SUFFIXES
from undersong.extras import install_hint
from undersong.regular_files import check_regular_file
from undersong.store.atomic import write_atomic
from undersong.store.hashing import canonical_json
from undersong.types import Quarantined, Sample, UndersongError

ENGINES = ("espeak", "piper", "flite")
# Accent of SD-QA -> the Edge-TTS voice that the paper used for GammaCorpus and HeySQuAD. All harmful requests were
# spoken by one voice, gTTS English, so "close in sound" may mean no more than "the same voice" there.
PAPER_VOICES = {
    "aus": "en-AU-NatashaNeural",
    "gbr": "en-GB-SoniaNeural",
    "ind_n": "en-IN-NeerjaNeural",
    "ind_s": "en-IN-PrabhatNeural",
    "irl": "en-IE-EmilyNeural",
    "kenya": "en-KE-AsiliaNeural",
    "nga": "en-NG-EzinneNeural",
    "nzl": "en-NZ-MollyNeural",
    "phl": "en-PH-RosaNeural",
    "usa": "en-US-JennyNeural",
    "zaf": "en-ZA-LeahNeural",
}
# English accents of espeak-ng. `+f1` … `+f5` and `+m1` … `+m8` add a speaker, as in `en-us+f3`.
ESPEAK_ACCENTS = (
    "en",
    "en-us",
    "en-us-nyc",
    "en-029",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
)


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice: the engine, the name that the engine knows it by, and its speed in words per minute.

    The name is a voice of espeak or flite, or the `.onnx` file of a piper model. piper and flite have no words per
    minute; their speed is `speed / 175` times that of the model or voice.
    """

    engine: str
    name: str
    speed: int = 175

    @property
    def label(self) -> str:
        """Name of the voice in samples, without paths of this machine."""
        return f"{self.engine}:{Path(self.name).stem if self.engine == 'piper' else self.name}"


@cache
def voice_identity(voice: Voice) -> tuple[str, ...]:
    """Everything that determines how a voice sounds: engine, its version, the voice (content of a model), and speed.

    Raises UndersongError if the engine or the model is missing.
    """
    if voice.engine == "espeak":
        if importlib.util.find_spec("espeakng_loader") is None:
            raise UndersongError(f"Speaking with espeak-ng needs its library; {install_hint('tts')}.")
        return "espeak", importlib.metadata.version("espeakng-loader"), voice.name, str(voice.speed)
    if voice.engine == "flite":
        version_output = subprocess.run(
            [_flite_command(), "--version"], capture_output=True, check=False
        ).stdout.decode()
        if voice.name not in _flite_voices():
            raise UndersongError(f"flite has no voice {voice.name!r}; take one of {', '.join(_flite_voices())}.")
        return "flite", " ".join(version_output.split()), voice.name, str(voice.speed)
    if voice.engine != "piper":
        raise UndersongError(f"No engine is called {voice.engine!r}; choose from {', '.join(ENGINES)}.")
    _piper_command()
    if not Path(voice.name).exists():
        raise UndersongError(f"There is no piper model {voice.name}; give the path of its .onnx file.")
    check_regular_file(voice.name)
    with Path(voice.name).open("rb") as file:
        return "piper", hashlib.file_digest(file, "sha256").hexdigest(), str(voice.speed)


def synthesize(voice: Voice, texts: Sequence[str]) -> Iterator[bytes | str]:
    """Speak each text: yields the bytes of a FLAC file at the engine's rate, or the reason for a failure, in order."""
    engines = {"espeak": _synthesize_espeak, "piper": _synthesize_piper, "flite": _synthesize_flite}
    return engines[voice.engine](voice, texts)


def _synthesize_espeak(voice: Voice, texts: Sequence[str]) -> Iterator[bytes | str]:
    command = [sys.executable, "-P", "-m", "undersong.corpora.espeak"]  # -P: do not import from the working directory
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:  # never with PIPE; for the type checker
            raise UndersongError("The pipes to espeak-ng are closed; run again.")
        for text in texts:
            request = {"text": text, "voice": voice.name, "speed": voice.speed}
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:  # the process ended; its last answer is read below
                pass
            header = process.stdout.readline()
            if not header:
                raise UndersongError("The process of espeak-ng ended by itself; run again to continue.")
            response = json.loads(header)
            yield response.get("error") or _flac_bytes(process.stdout.read(response["bytes"]), response["rate"])


def _synthesize_piper(voice: Voice, texts: Sequence[str]) -> Iterator[bytes | str]:
    """One process loads the model once and writes one file per line, named by a monotonic clock."""
    import soundfile

    lines = [" ".join(text.split()) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        scale = f"{175 / voice.speed:.6g}"
        command = [*_piper_command(), "--model", voice.name, "--output_dir", folder, "--length_scale", scale]
        process = subprocess.run(command, input="\n".join(lines).encode() + b"\n", capture_output=True, check=False)
        files = sorted(Path(folder).glob("*.wav"), key=lambda file: (len(file.name), file.name))
        if process.returncode or len(files) != len(lines):
            error_lines = process.stderr.decode(errors="replace").strip().splitlines()
            reason = (
                error_lines[-1] if error_lines and process.returncode else f"{len(files)} files for {len(lines)} texts"
            )
            raise UndersongError(f"piper failed with {voice.name} ({reason}); try the texts one by one.")
        for file in files:
            pcm, rate = soundfile.read(file, dtype="int16")
            yield _flac_bytes(pcm.astype("<i2").tobytes(), rate) if pcm.size else "piper says nothing"


@cache
def _piper_command() -> tuple[str, ...]:
    """The command that starts piper, or its package (GPL-3.0, so it runs in a separate process)."""
    if command := shutil.which("piper"):
        return (command,)
    if importlib.util.find_spec("piper") is not None:
        return sys.executable, "-P", "-m", "piper"
    raise UndersongError("There is no piper here; install the package piper-tts, or put the command on the path.")


def _synthesize_flite(voice: Voice, texts: Sequence[str]) -> Iterator[bytes | str]:
    """One process per text: it starts in milliseconds, and its output does not depend on earlier texts."""
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        for text in texts:
            file.unlink(missing_ok=True)
            stretch = f"duration_stretch={175 / voice.speed:.6g}"
            command = [_flite_command(), "-voice", voice.name, "--setf", stretch, "-t", text, "-o", str(file)]
            process = subprocess.run(command, capture_output=True, check=False)
            if process.returncode or not file.is_file():
                yield f"flite failed on it (status {process.returncode})"
                continue
            pcm, rate = soundfile.read(file, dtype="int16")
            yield _flac_bytes(pcm.astype("<i2").tobytes(), rate) if pcm.size else "flite says nothing"


@cache
def _flite_command() -> str:
    """Path of the command `flite` (Debian: flite)."""
    if command := shutil.which("flite"):
        return command
    raise UndersongError("There is no flite here; install the system's package flite.")


@cache
def _flite_voices() -> tuple[str, ...]:
    """The voices that flite was built with."""
    output = subprocess.run([_flite_command(), "-lv"], capture_output=True, check=False).stdout.decode()
    return tuple(output.partition(":")[2].split())


def _flac_bytes(pcm: bytes, rate: int) -> bytes:
    import numpy as np
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(pcm, dtype="<i2"), rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


SPEECH_VERSION = 1
CHUNK_TEXTS = 64  # texts per process; a killed piper run loses at most so many
VOICE_LABEL = "voice"

SpokenSamples = tuple[tuple[Sample, ...], tuple[Quarantined, ...]]


def synthesize_speech(
    samples: Sequence[Sample], voices: Sequence[Voice], folder: str | Path, workers: int | None = None
) -> SpokenSamples:
    """Speak every sample's text in every voice, as FLAC files in `folder`.

    With several voices an item becomes one item per voice, `ID-ENGINE:NAME`, all in one group (its own, or else its
    id): the same words in eleven accents are one question. `speaker` and the label `voice` name the voice. Existing
    files are not made again.

    Args:
        samples: Text samples.
        voices: The voices, each once.
        folder: Folder for the files.
        workers: Processes at a time (default: one per CPU).

    Returns:
        The spoken samples, and those that could not be spoken.

    Raises:
        UndersongError: A missing engine, model or voice; ids that clash; or samples that have audio already.
    """
    if not voices or len({voice.label for voice in voices}) < len(voices):
        raise UndersongError("Speech needs at least one voice, each named once; name some.")
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
    """Attach existing audio: the file in `folder` whose path without the suffix is the sample's id.

    Samples without a file are quarantined. Raises UndersongError if two files have the same id.
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
    """A text as one line without NUL, which would end it early."""
    return " ".join((text or "").replace("\0", " ").split())


def _spoken_item(sample: Sample, voice: Voice, voice_in_id: bool) -> Sample:
    if sample.column(VOICE_LABEL) is not None:
        raise UndersongError(f"item {sample.id!r} has a label {VOICE_LABEL!r} already; rename it.")
    labels = tuple(sorted([*sample.labels, (VOICE_LABEL, voice.label)]))
    sample_id = f"{sample.id}-{voice.label}" if voice_in_id else sample.id
    return replace(sample, id=sample_id, group=sample.cluster, speaker=voice.label, labels=labels)


def _synthesize_files(texts_by_path: dict[Path, tuple[Voice, str]], workers: int | None) -> dict[Path, str]:
    """Speak into the files; return the reasons for failures. Threads wait for the processes that do the work."""
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
