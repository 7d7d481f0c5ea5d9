"""From an audio file or its bytes to a decoded clip, or a reason why not.  Never silence, never a guess.

Knows soundfile and soxr; does not know models.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from undersong.corpora.sound.containers import fault
from undersong.corpora.sound.flac import FlacSum
from undersong.types import Clip, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    import numpy as np

RATES = (1_000, 768_000)  # outside, a sampling rate is a damaged header, and resampling by it would fill the memory
LOUDEST = 8.0  # full scale is 1; codecs overshoot a little, integers written as floats by thousands
BLOCK = 1 << 20
LARGEST = 4 << 30  # bytes of one file
LONGEST = 6 * 3600  # seconds of one clip; at 16 kHz that is 1.4 GB in memory


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
        mono, native = _decode(file_bytes(sample))
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


def file_bytes(sample: Sample) -> bytes:
    """The encoded audio as it is; ValueError says why there is none."""
    if sample.audio is None:
        raise ValueError("there is no audio")
    data = sample.audio if isinstance(sample.audio, bytes) else _read(sample.audio)
    if not data:
        raise ValueError("the audio file is empty")
    return data


def _read(path: str) -> bytes:
    """A regular file's bytes.  A pipe or a device never ends or never begins, so it is not waited for."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(opened, "rb") as file:  # closes it whatever comes
            status = os.fstat(opened)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path} is no file but a pipe, socket or device")
            if status.st_size > LARGEST:
                raise ValueError(f"the audio file {path} has {status.st_size >> 20} MiB, above {LARGEST >> 20}")
            return file.read()
    except OSError as error:
        raise ValueError(f"the audio file {path} cannot be opened ({error.strerror})") from error


def _decode(data: bytes) -> tuple[np.ndarray, int]:
    """(frames,) float32, the mean of the channels, and the rate; ValueError if the audio is damaged or cut short."""
    import numpy as np
    import soundfile

    blocks: list[np.ndarray] = []
    read = 0
    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise ValueError(f"the audio claims a sampling rate of {file.samplerate} Hz")
            # By blocks: a damaged header may declare more frames than there is memory, and many channels are only in
            # memory for a moment.
            size = max(1, BLOCK // file.channels)
            checked = FlacSum(data) if file.format == "FLAC" else None
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are looked for below
                    blocks.append(block.mean(axis=1, dtype=np.float64).astype(np.float32))
                read += len(block)
                if checked is not None:
                    checked.add(block)
                if read > LONGEST * file.samplerate:  # hours of silence are a few bytes in FLAC or Opus
                    raise ValueError(f"the audio is longer than {LONGEST / 3600:g} h; cut it")
            declared, log, rate, coding = file.frames, file.extra_info, file.samplerate, file.format
    except soundfile.SoundFileError as error:
        detail = getattr(error, "error_string", str(error)).strip(" .")  # without the prefix: it holds an address
        raise ValueError(f"the audio is damaged or in an unknown format (libsndfile: {detail})") from error
    if not blocks:
        raise ValueError("the audio holds no samples")
    # Without an index the length of an MP3 is an estimate, so only a gross lack is a sign there.
    if read < declared * (0.9 if coding == "MP3" else 1):
        raise ValueError(f"the audio is cut short: {read / rate:.2f} s are left of it")
    if why := checked.fault() if checked is not None else fault(data, coding, log):
        raise ValueError(why)
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0], rate


class _Bytes(io.BytesIO):
    """Bytes as a file that stays where it is when a damaged header sends libsndfile before its beginning.

    An exception there, inside the library's callback, would only be printed.
    """

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _check(signal: np.ndarray) -> None:
    """ValueError for what no microphone records."""
    import numpy as np

    peak = float(max(signal.max(), -signal.min()))  # NaN where one is in it; no copies of what may be hours long
    if not np.isfinite(peak):
        raise ValueError("the audio holds NaN or infinite samples")
    if peak > LOUDEST:
        raise ValueError(f"the audio reaches {peak:g} where full scale is 1; scale it to -1..1")
