"""The acoustic encoder without weights: mean and standard deviation of log-mel frames.

Computed by numpy alone, because the core is installed without transformers, whose `spectrogram` gives the same numbers.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from undersong.encoders.clip_encoder import ClipEncoder
from undersong.types import Clip, PooledVector

RATE, MEL_BINS, WINDOW, HOP = 16_000, 80, 400, 160  # 25 ms frames every 10 ms
FRAMES_PER_BLOCK = 4_096  # a long recording is not copied into overlapping frames as a whole
DYNAMIC_RANGE = 8.0  # decades of power kept below a clip's loudest cell, as Whisper does


def logmel_encoder() -> ClipEncoder:
    """Encoder of the mean and standard deviation over log-mel frames: 160 dimensions, frames at 100 Hz.

    Every frame is inside the clip (no padding, no reflection at the ends). Loudness does not matter: the gain of a
    recording says nothing about its voice, and in log-mel it is a common offset that would dominate every cosine. So a
    clip is scaled to its peak, and its mean level is subtracted.
    """
    return ClipEncoder("logmel", embed=lambda clips: [_frame_statistics(clip) for clip in clips], rate=RATE)


def _frame_statistics(clip: Clip) -> PooledVector:
    """Statistics of a clip (160,): 80 means, 80 standard deviations."""
    if len(clip.samples) < WINDOW:
        return PooledVector(np.zeros(2 * MEL_BINS, dtype=np.float32), 0)
    frames = _log_mel(clip.samples / np.abs(clip.samples).max())
    vector = np.concatenate([frames.mean(axis=0) - frames.mean(), frames.std(axis=0)])
    return PooledVector(vector.astype(np.float32), len(frames))


def _log_mel(samples: np.ndarray) -> np.ndarray:
    """(n,) -> (frames, 80) float64, log10 power, at most DYNAMIC_RANGE below the loudest cell."""
    window, filters = _filters()
    all_frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), WINDOW)[::HOP]
    spectrum = np.empty((len(all_frames), 1 + WINDOW // 2), dtype=np.complex64)
    for start in range(0, len(all_frames), FRAMES_PER_BLOCK):
        block = slice(start, start + FRAMES_PER_BLOCK)
        spectrum[block] = np.fft.rfft(all_frames[block] * window)
    power = np.abs(spectrum, dtype=np.float64) ** 2
    mel = np.log10(np.maximum(np.dot(filters.T, power.T), 1e-10)).astype(np.float32)
    frames = mel.T.astype(np.float64)
    return np.maximum(frames, frames.max() - DYNAMIC_RANGE)


@cache
def _filters() -> tuple[np.ndarray, np.ndarray]:
    """Hann window (400,) and Whisper's mel filters (201, 80): triangles on Slaney's scale, of equal area.

    Slaney's scale is linear up to 1,000 Hz (15 mel) and logarithmic above.
    """
    top_mel = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0.0, top_mel, MEL_BINS + 2)
    edges = np.where(mels < 15, 200 * mels / 3, 1000 * np.exp(np.log(6.4) / 27 * (mels - 15)))
    slopes = edges - np.linspace(0, RATE / 2, 1 + WINDOW // 2)[:, None]
    widths = np.diff(edges)
    triangles = np.maximum(0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    return np.hanning(WINDOW + 1)[:-1], triangles * (2 / (edges[2:] - edges[:-2]))
