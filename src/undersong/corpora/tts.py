"""Voices that text is spoken in, and the engines that speak: espeak-ng, piper, flite.  Knows processes, not corpora.

The paper spoke its texts with online services, which this tool does not call; `PAPER_VOICES` says which, so that audio
made with them elsewhere can be brought along (`speak.with_audio`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from undersong.types import UndersongError

ENGINES = ("espeak", "piper", "flite")
# Accent of SD-QA -> the Edge-TTS voice that the paper spoke GammaCorpus and HeySQuAD with.  Harmful requests were all
# spoken by one voice, gTTS English, so there "close in sound" may be no more than "that voice".
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
# Accents of English that espeak-ng has; a speaker is added by `+f1` … `+f5`, `+m1` … `+m8`, as in `en-us+f3`.
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
    """Who speaks: an engine, the name it knows (espeak, flite: a voice; piper: a model's `.onnx` file), words a minute.

    piper and flite have no words a minute: their speed is `speed / 175` times that of the model or voice.
    """

    engine: str
    name: str
    speed: int = 175

    @property
    def label(self) -> str:
        """How the voice is called in samples: nothing of this machine's paths."""
        return f"{self.engine}:{Path(self.name).stem if self.engine == 'piper' else self.name}"


@cache
def voice_identity(voice: Voice) -> tuple[str, ...]:
    """What decides how a voice sounds: engine, its version, the voice itself (of a model: its content), speed.

    UndersongError where the engine or the model is not there.
    """
    if voice.engine == "espeak":
        if importlib.util.find_spec("espeakng_loader") is None:
            raise UndersongError("Speaking with espeak-ng needs its library; pip install 'undersong[tts]'.")
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
    if not Path(voice.name).is_file():
        raise UndersongError(f"There is no piper model {voice.name}; give the path of its .onnx file.")
    with Path(voice.name).open("rb") as file:
        return "piper", hashlib.file_digest(file, "sha256").hexdigest(), str(voice.speed)


def synthesize(voice: Voice, texts: Sequence[str]) -> Iterator[bytes | str]:
    """Each text as the bytes of a FLAC file at the engine's own rate, or as the reason why not; in order."""
    engines = {"espeak": _synthesize_espeak, "piper": _synthesize_piper, "flite": _synthesize_flite}
    return engines[voice.engine](voice, texts)


def _synthesize_espeak(voice: Voice, texts: Sequence[str]) -> Iterator[bytes | str]:
    command = [sys.executable, "-P", "-m", "undersong.corpora.espeak"]  # -P: nothing of the folder one is in
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:  # never with PIPE; said for the type checker
            raise UndersongError("espeak-ng cannot be talked to; start anew.")
        for text in texts:
            request = {"text": text, "voice": voice.name, "speed": voice.speed}
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:  # it ended; what it answered last is told below
                pass
            header = process.stdout.readline()
            if not header:
                raise UndersongError("The process of espeak-ng ended by itself; run again to go on where it stopped.")
            response = json.loads(header)
            yield response.get("error") or _flac_bytes(process.stdout.read(response["bytes"]), response["rate"])


def _synthesize_piper(voice: Voice, texts: Sequence[str]) -> Iterator[bytes | str]:
    """One process loads the model once and writes a file a line, named by a clock that only goes forward."""
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
    """How piper is called here: its command, or its package (GPL-3.0, so a process of its own and no part of this)."""
    if command := shutil.which("piper"):
        return (command,)
    if importlib.util.find_spec("piper") is not None:
        return sys.executable, "-P", "-m", "piper"
    raise UndersongError("There is no piper here; install the package piper-tts, or put the command on the path.")


def _synthesize_flite(voice: Voice, texts: Sequence[str]) -> Iterator[bytes | str]:
    """A process a text: flite says the same whatever it said before, and takes milliseconds to begin."""
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
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
    """The command (Debian: flite)."""
    if command := shutil.which("flite"):
        return command
    raise UndersongError("There is no flite here; install the system's package flite.")


@cache
def _flite_voices() -> tuple[str, ...]:
    """The voices it was built with."""
    output = subprocess.run([_flite_command(), "-lv"], capture_output=True, check=False).stdout.decode()
    return tuple(output.partition(":")[2].split())


def _flac_bytes(pcm: bytes, rate: int) -> bytes:
    import numpy as np
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(pcm, dtype="<i2"), rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
