"""From an audio file or its bytes to a decoded clip, or a reason why not.  Never silence, never a guess.

Knows soundfile and soxr; does not know models.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.types import Clip, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    import numpy as np

RATES = (1_000, 768_000)  # outside, a sampling rate is a damaged header, and resampling by it would fill the memory
LOUDEST = 8.0  # full scale is 1; codecs overshoot a little, integers written as floats by thousands
STREAMED = 0x7FFF0000  # from here on a declared size is a placeholder of a writer that did not know it
BLOCK = 1 << 20


class Unreadable(UndersongError):
    """The audio of one item cannot be used; `reason` says why, without the item's name."""

    def __init__(self, item: str, reason: str) -> None:
        super().__init__(f"item {item!r}: {reason}; mend or remove it.")
        self.reason = reason


def load_clip(sample: Sample, rate: int = 16_000) -> Clip:
    """Decode a sample's audio (path or bytes, any channels and rate): (n,) float32, mean of channels, at `rate` Hz.

    The content decides about the format, not the file's name.  Raises Unreadable.
    """
    import numpy as np
    import soxr

    try:
        frames, native = _decode(_file_bytes(sample))
        mono = frames.mean(axis=1, dtype=np.float64).astype(np.float32)
        _check(mono)
    except ValueError as error:
        raise Unreadable(sample.id, str(error)) from error
    samples = mono if native == rate else soxr.resample(mono, native, rate)
    if samples.size == 0:
        raise Unreadable(sample.id, f"the audio is too short: {mono.size} samples at {native} Hz")
    return Clip(sample.id, np.ascontiguousarray(samples, dtype=np.float32), rate)


def load_clips(samples: Sequence[Sample], rate: int = 16_000) -> tuple[list[Clip], list[Quarantined]]:
    """Clips of the samples that can be read, in order, and the others with their reasons."""
    clips, quarantined = [], []
    for sample in samples:
        try:
            clips.append(load_clip(sample, rate))
        except Unreadable as error:
            quarantined.append(Quarantined(sample.id, error.reason))
    return clips, quarantined


def pcm_hash(clip: Clip) -> str:
    """SHA-256 of what is heard: the rate and the float32 little-endian samples."""
    return hashlib.sha256(f"{clip.rate}\n".encode() + clip.samples.astype("<f4").tobytes()).hexdigest()


def examine(samples: Sequence[Sample], rate: int = 16_000) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """Decode every spoken item once: usable samples with `seconds` and `pcm_hash` filled in, and why others are not.

    Written items pass as they are.  What a manifest said of seconds and hash is replaced by what was found.
    """
    kept, quarantined = [], []
    for sample in samples:
        if sample.audio is None and (sample.text or "").strip():
            kept.append(sample)
        elif sample.audio is None:
            quarantined.append(Quarantined(sample.id, "there is neither audio nor text"))
        else:
            clips, failed = load_clips([sample], rate)
            quarantined += failed
            kept += [replace(sample, seconds=c.samples.size / rate, pcm_hash=pcm_hash(c)) for c in clips]
    return tuple(kept), tuple(quarantined)


def _file_bytes(sample: Sample) -> bytes:
    """The encoded audio; ValueError says why there is none."""
    if sample.audio is None:
        raise ValueError("there is no audio")
    if isinstance(sample.audio, str):
        try:
            data = Path(sample.audio).read_bytes()
        except OSError as error:
            raise ValueError(f"the audio file {sample.audio} cannot be opened ({error.strerror})") from error
    else:
        data = sample.audio
    if not data:
        raise ValueError("the audio file is empty")
    return data


def _decode(data: bytes) -> tuple[np.ndarray, int]:
    """(frames, channels) float32 and the file's own rate; ValueError if it is damaged or cut short."""
    import numpy as np
    import soundfile

    blocks = []
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise ValueError(f"the audio claims a sampling rate of {file.samplerate} Hz")
            # By blocks: a damaged header may declare more frames than there is memory.
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block)
            declared, log, rate, coding = file.frames, file.extra_info, file.samplerate, file.format
    except soundfile.SoundFileError as error:
        detail = getattr(error, "error_string", str(error)).strip(" .")  # without the prefix: it holds an address
        raise ValueError(f"the audio is damaged or in an unknown format (libsndfile: {detail})") from error
    if not blocks:
        raise ValueError("the audio holds no samples")
    frames = np.concatenate(blocks)
    # Without an index the length of an MP3 is an estimate, so only a gross lack is a sign there.
    lacks = len(frames) < declared * (0.9 if coding == "MP3" else 1)
    if lacks or _smaller_than_declared(log) or (data.startswith(b"OggS") and _last_page_is_cut(data)):
        raise ValueError(f"the audio is cut short: {len(frames) / rate:.2f} s are left of it")
    return frames, rate


def _smaller_than_declared(log: str) -> bool:
    """libsndfile reads what is left of a cut WAV, AIFF, AU, CAF or W64 without complaint, but logs what it misses."""
    sizes = re.findall(r"(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", log)
    return any(int(is_) < int(declared) < STREAMED for declared, is_ in sizes)


def _last_page_is_cut(data: bytes) -> bool:
    """Whether an Ogg file ends inside a page: header of 27 bytes, the number of segments last, then their sizes."""
    page = data[data.rfind(b"OggS") :]
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _check(signal: np.ndarray) -> None:
    """ValueError for what no microphone records."""
    import numpy as np

    if not np.isfinite(signal).all():
        raise ValueError("the audio holds NaN or infinite samples")
    if (peak := float(np.abs(signal).max())) > LOUDEST:
        raise ValueError(f"the audio reaches {peak:g} where full scale is 1; scale it to -1..1")
