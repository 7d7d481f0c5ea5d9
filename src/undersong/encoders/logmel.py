"""The acoustic encoder without weights: mean and standard deviation of log-mel frames.

Computed by numpy; torch is not loaded.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from undersong.encoders.clip_encoder import ClipEncoder
from undersong.types import Clip, PooledVector

RATE, MEL_BINS, WINDOW, HOP = 16_000, 80, 400, 160  # 25 ms frames every 10 ms
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
    from transformers.audio_utils import spectrogram

    window, filters = _filters()
    mel = spectrogram(
        samples, window, WINDOW, HOP, power=2.0, center=False, mel_filters=filters, mel_floor=1e-10, log_mel="log10"
    )
    frames = mel.T.astype(np.float64)
    return np.maximum(frames, frames.max() - DYNAMIC_RANGE)


@cache
def _filters() -> tuple[np.ndarray, np.ndarray]:
    """Hann window (400,) and Whisper's mel filters (201, 80)."""
    from transformers.audio_utils import mel_filter_bank, window_function

    filters = mel_filter_bank(1 + WINDOW // 2, MEL_BINS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    return window_function(WINDOW, "hann"), filters
