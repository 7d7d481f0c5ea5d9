"""An encoder of your own: `undersong screen … --axis bright=python:examples/encoder.py:bright`."""

import numpy as np

from undersong.encoders.clip_encoder import ClipEncoder
from undersong.types import PooledVector

FRAME, BANDS = 512, 24  # samples (32 ms at 16 kHz); bands of about equal width


def spectrum(clip):
    """The long-term average spectrum: how bright a voice is, whatever it says."""
    count = len(clip.samples) // FRAME  # whole frames: no padding enters the mean
    if count == 0:
        return PooledVector(np.zeros(BANDS, np.float32), 0)  # too short: quarantined
    frames = clip.samples[: count * FRAME].reshape(count, FRAME) * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(frames)) ** 2
    bands = np.stack([band.mean() for band in np.array_split(power, BANDS, axis=1)])
    level = np.log(bands + 1e-10)
    return PooledVector((level - level.mean()).astype(np.float32), count)  # loudness is no voice


def bright():
    return ClipEncoder("average spectrum", lambda clips: [spectrum(clip) for clip in clips], rate=16_000)
