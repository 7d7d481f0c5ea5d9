"""Coarse audio fingerprints (log-mel energy over time) that match the same recording across codecs and gain, and an
exact pair search by cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from undersong.types import Clip

if TYPE_CHECKING:
    import numpy as np

BANDS, TIME_SPANS = 16, 32
MIN_HERTZ, MAX_HERTZ = 100.0, 3_800.0  # Hz: the band that telephones, codecs and low sampling rates all keep
WINDOW_SECONDS, HOP_SECONDS = 0.032, 0.010  # seconds
FLOOR_DECIBELS = 40.0  # dB below the loudest cell: codecs differ in quieter cells
MAX_DURATION_DIFFERENCE = 0.1  # clips whose sounding parts differ by more than this share in length are not compared
BLOCK = 1024  # fingerprints at a time

FingerprintPair = tuple[int, int, float]


def fingerprint_clip(clip: Clip) -> tuple[np.ndarray, float] | None:
    """Fingerprint of a clip: (vector (512,) float32 of length 1, seconds between the first and the last loud frame).

    None if the clip is constant, or shorter than 0.4 s. The vector holds the log energy of 16 mel-spaced bands in 32
    equal time spans. The mean of each band is subtracted, so gain and tone control do not matter.
    """
    import numpy as np

    size, hop = round(WINDOW_SECONDS * clip.rate), round(HOP_SECONDS * clip.rate)
    if clip.samples.size < size + (TIME_SPANS - 1) * hop:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(clip.samples, size)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)) ** 2
    bands = np.add.reduceat(power, _band_edges(size, clip.rate), axis=1)[:, :BANDS]
    energy = bands.sum(axis=1)
    if energy.max() <= 0:
        return None
    loud_frames = np.flatnonzero(energy > energy.max() * 10 ** (-FLOOR_DECIBELS / 10))
    bands = bands[loud_frames[0] : loud_frames[-1] + 1]
    if len(bands) < TIME_SPANS:
        return None
    decibels = 10 * np.log10(np.maximum(bands, bands.max() * 10 ** (-FLOOR_DECIBELS / 10)))
    cuts = np.linspace(0, len(decibels), TIME_SPANS + 1).astype(int)
    spans = np.add.reduceat(decibels, cuts[:-1], axis=0) / np.diff(cuts)[:, None]
    vector = (spans - spans.mean(axis=0)).ravel()
    norm = float(np.linalg.norm(vector))
    if norm < 1e-3:
        return None
    return (vector / norm).astype(np.float32), len(bands) * HOP_SECONDS


def find_similar_fingerprints(
    a: Sequence[tuple[np.ndarray, float] | None], b: Sequence[tuple[np.ndarray, float] | None], threshold: float
) -> list[FingerprintPair]:
    """(i, j, cosine) of all pairs of fingerprints at or above `threshold`, in order; exact, by blocks.

    Clips that have no fingerprint, and pairs whose sounding parts differ by more than a tenth in length, are no pair.
    """
    import numpy as np

    indices_a = [i for i, fingerprint in enumerate(a) if fingerprint]
    indices_b = [j for j, fingerprint in enumerate(b) if fingerprint]
    if not indices_a or not indices_b:
        return []
    vectors = np.stack([fingerprint[0] for fingerprint in b if fingerprint])
    seconds = np.array([fingerprint[1] for fingerprint in b if fingerprint])
    pairs: list[FingerprintPair] = []
    for start in range(0, len(indices_a), BLOCK):
        indices = indices_a[start : start + BLOCK]
        block = [fingerprint for index in indices if (fingerprint := a[index])]
        cosines = np.stack([fingerprint[0] for fingerprint in block]) @ vectors.T
        block_seconds = np.array([fingerprint[1] for fingerprint in block])[:, None]
        similar_length = np.abs(block_seconds - seconds) <= MAX_DURATION_DIFFERENCE * np.maximum(block_seconds, seconds)
        for row, column in zip(*np.nonzero((cosines >= threshold) & similar_length)):
            pairs.append((indices[row], indices_b[column], min(1.0, float(cosines[row, column]))))
    return sorted(pairs)


def _band_edges(size: int, rate: int) -> np.ndarray:
    """First spectrum bin of each band, in equal mel steps (O'Shaughnessy), and of the bins above the last band."""
    import numpy as np

    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (MIN_HERTZ, MAX_HERTZ))
    mel = np.linspace(low, high, BANDS + 1)
    return np.round(700 * (10 ** (mel / 2595) - 1) * size / rate).astype(int)
