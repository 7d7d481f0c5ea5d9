"""Decoding of audio files or bytes to mono float32 clips, with checks for silence and damage, and an ordered thread
pool.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from undersong.corpora.integrity import FlacChecksum, corruption_reason
from undersong.types import Clip, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    import numpy as np


THREADS = 4  # libsndfile, soxr and hashing release the interpreter's lock
Item = TypeVar("Item")
Result = TypeVar("Result")


def threaded_map(
    function: Callable[[Item], Result], items: Iterable[Item], max_pending: Callable[[], int], threads: int = THREADS
) -> Iterator[Result]:
    """Apply `function` to each item in threads; yield the results in the items' order.

    Args:
        function: Called once per item, in a worker thread.
        items: The items; read lazily.
        max_pending: Limit of items that are decoded ahead. Called again at every item.
        threads: Number of worker threads.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                while len(pending) > max_pending():
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # a consumer that stops early does not wait for the rest
            for future in pending:
                future.cancel()


FRAME_SECONDS = 0.025  # seconds
SILENCE_RMS = 1e-3  # RMS about a frame's own mean: 60 dB below full scale, which a converter's hum may reach
MIN_SOUND_SECONDS = 0.1  # seconds of sound: a click of the recorder is not speech


def inaudible_reason(clip: Clip, min_seconds: float = MIN_SOUND_SECONDS) -> str | None:
    """Return the reason for quarantine if a clip is inaudible; None if it is audible.

    Loudness is the RMS of 25 ms frames about each frame's own mean, so a constant or stepping offset of the converter
    counts as silence. At least `min_seconds` have to be loud.
    """
    import numpy as np

    size = max(1, round(FRAME_SECONDS * clip.rate))
    usable_length = clip.samples.size // size * size
    frames = clip.samples[:usable_length].reshape(-1, size) if usable_length else clip.samples.reshape(1, -1)
    if not frames.size or not np.isfinite(frames).all():
        return "the audio holds no usable samples"
    if clip.samples.min() == clip.samples.max():
        return f"the audio is constant ({float(clip.samples[0]):g} throughout)"
    is_loud = frames.std(axis=1, dtype=np.float64) > SILENCE_RMS
    seconds = float(is_loud.sum()) * frames.shape[1] / clip.rate
    if seconds < min_seconds:
        total_seconds = clip.samples.size / clip.rate
        return f"the audio is silent or too short: {seconds:.2f} s of {total_seconds:.2f} s are above -60 dB"
    return None


# A rate outside this range means a damaged header; resampling by it would fill the memory.
SAMPLE_RATE_RANGE = (1_000, 768_000)
MAX_AMPLITUDE = 8.0  # full scale is 1; codecs overshoot a little, integers written as floats by thousands
BLOCK = 1 << 20
MAX_FILE_BYTES = 4 << 30  # bytes of one file
MAX_SECONDS = 6 * 3600  # seconds of one clip; at 16 kHz that is 1.4 GB in memory


class UnreadableAudioError(UndersongError):
    """The audio of one item cannot be used; `reason` says why, without the item's name."""

    def __init__(self, sample_id: str, reason: str) -> None:
        super().__init__(f"item {sample_id!r}: {reason}; fix or remove it.")
        self.reason = reason


def load_clip(sample: Sample, rate: int = 16_000) -> Clip:
    """Decode a sample's audio (path or bytes, any channels and rate): (n,) float32, mean of channels, at `rate` Hz.

    The content decides about the format, not the file's name. Raises UnreadableAudioError.
    """
    import numpy as np
    import soxr

    try:
        mono, native_rate = _decode(file_bytes(sample))
        _check_amplitude(mono)
    except ValueError as error:
        raise UnreadableAudioError(sample.id, str(error)) from error
    samples = mono if native_rate == rate else soxr.resample(mono, native_rate, rate)
    if samples.size == 0:
        raise UnreadableAudioError(sample.id, f"the audio is too short: {mono.size} samples at {native_rate} Hz")
    return Clip(sample.id, np.ascontiguousarray(samples, dtype=np.float32), rate)


def load_clips(samples: Sequence[Sample], rate: int = 16_000) -> tuple[list[Clip], list[Quarantined]]:
    """Decode samples; return the clips that can be read, in order, and the other samples as quarantined."""
    clips, quarantined = [], []
    for sample in samples:
        try:
            clips.append(load_clip(sample, rate))
        except UnreadableAudioError as error:
            quarantined.append(Quarantined(sample.id, error.reason))
    return clips, quarantined


def pcm_hash(clip: Clip) -> str:
    """SHA-256 of the decoded audio: the rate and the float32 little-endian samples."""
    return hashlib.sha256(f"{clip.rate}\n".encode() + clip.samples.astype("<f4").tobytes()).hexdigest()


def file_bytes(sample: Sample) -> bytes:
    """The encoded audio of a sample, unchanged. Raises ValueError with the reason if there is none."""
    if sample.audio is None:
        raise ValueError("there is no audio")
    data = sample.audio if isinstance(sample.audio, bytes) else _read_file(sample.audio)
    if not data:
        raise ValueError("the audio file is empty")
    return data


def _read_file(path: str) -> bytes:
    """Bytes of a regular file. Pipes and devices are rejected, because reading them may never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # closes the descriptor in any case
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path} is no file but a pipe, socket or device")
            if not status.st_size:  # also the files of the kernel, whose end may never come
                raise ValueError("the audio file is empty")
            if status.st_size > MAX_FILE_BYTES:
                raise ValueError(f"the audio file {path} has {status.st_size >> 20} MiB, above {MAX_FILE_BYTES >> 20}")
            return file.read()
    except OSError as error:
        raise ValueError(f"the audio file {path} cannot be opened ({error.strerror})") from error


def _decode(data: bytes) -> tuple[np.ndarray, int]:
    """(frames,) float32, the mean of the channels, and the rate. Raises ValueError if the audio is damaged or cut
    short.
    """
    import numpy as np
    import soundfile

    blocks: list[np.ndarray] = []
    frames_read = 0
    try:
        with _deferred_signals(), soundfile.SoundFile(_AudioBuffer(data)) as file:
            if not SAMPLE_RATE_RANGE[0] <= file.samplerate <= SAMPLE_RATE_RANGE[1]:
                raise ValueError(f"the audio claims a sampling rate of {file.samplerate} Hz")
            # In blocks: a damaged header may declare more frames than fit in memory, and only one block holds all
            # channels at a time.
            size = max(1, BLOCK // file.channels)
            flac_checksum = FlacChecksum(data) if file.format == "FLAC" else None
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are checked below
                    blocks.append(block.mean(axis=1, dtype=np.float64).astype(np.float32))
                frames_read += len(block)
                if flac_checksum is not None:
                    flac_checksum.add(block)
                if frames_read > MAX_SECONDS * file.samplerate:  # hours of silence are a few bytes in FLAC or Opus
                    raise ValueError(f"the audio is longer than {MAX_SECONDS / 3600:g} h; cut it")
            declared_frames, header_log, rate, file_format = file.frames, file.extra_info, file.samplerate, file.format
    except soundfile.SoundFileError as error:
        detail = getattr(error, "error_string", str(error)).strip(" .")  # without the prefix: it holds an address
        raise ValueError(f"the audio is damaged or in an unknown format (libsndfile: {detail})") from error
    if not blocks:
        raise ValueError("the audio holds no samples")
    # Without an index the length of an MP3 is an estimate, so only a large difference means damage.
    if frames_read < declared_frames * (0.9 if file_format == "MP3" else 1):
        raise ValueError(f"the audio is cut short: {frames_read / rate:.2f} s are left of it")
    if (
        reason := flac_checksum.corruption_reason()
        if flac_checksum is not None
        else corruption_reason(data, file_format, header_log)
    ):
        raise ValueError(reason)
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0], rate


@contextmanager
def _deferred_signals() -> Iterator[None]:
    """Deliver signals that would interrupt Python only after the context.

    libsndfile reads through callbacks, in which an exception would be printed and lost: the clip would seem damaged,
    and the process would go on.
    """
    if threading.current_thread() is not threading.main_thread():  # signal handlers run in the main thread alone
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    replaced = {number: handler for number, handler in handlers.items() if callable(handler)}
    received: list[int] = []
    for number in replaced:
        signal.signal(number, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
        for received_number in received:
            signal.raise_signal(received_number)


class _AudioBuffer(io.BytesIO):
    """Bytes as a file that ignores a seek before its beginning, to which a damaged header may send libsndfile.

    An exception inside the library's callback would only be printed.
    """

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _check_amplitude(signal: np.ndarray) -> None:
    """Raise ValueError for values that no microphone records."""
    import numpy as np

    peak = float(max(signal.max(), -signal.min()))  # NaN if there is one; makes no copy of hours of audio
    if not np.isfinite(peak):
        raise ValueError("the audio holds NaN or infinite samples")
    if peak > MAX_AMPLITUDE:
        raise ValueError(f"the audio reaches {peak:g} where full scale is 1; scale it to -1..1")
