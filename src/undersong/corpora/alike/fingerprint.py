"""Coarse fingerprints of sound: the same recording in another coding, loudness or frame of silence is found again.

Knows clips; does not know samples.  A fingerprint says *how the energy moves*, 16 bands by 32 moments, so two speakers
saying the same words are not alike: that is what text is compared for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from undersong.types import Clip

if TYPE_CHECKING:
    import numpy as np

BANDS, MOMENTS = 16, 32
LOW, HIGH = 100.0, 3_800.0  # Hz: what a telephone, a codec and a low sampling rate all keep
WINDOW, HOP = 0.032, 0.010  # seconds
FLOOR = 40.0  # dB below the loudest cell: codecs differ in what is quieter
STRETCH = 0.1  # clips whose sounding parts differ by more than this share in length are not compared
BLOCK = 1024  # fingerprints at a time

Pair = tuple[int, int, float]


def fingerprint(clip: Clip) -> tuple[np.ndarray, float] | None:
    """(vector (512,) float32 of length 1, seconds that sound), or None where nothing moves or it is too short (0.4 s).

    Log energy in 16 mel-spaced bands of the part between the first and the last loud frame, averaged over 32 equal
    spans; each band's mean taken off (so gain and tone control do not matter), scaled to length 1.
    """
    import numpy as np

    size, hop = round(WINDOW * clip.rate), round(HOP * clip.rate)
    if clip.samples.size < size + (MOMENTS - 1) * hop:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(clip.samples, size)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)) ** 2
    bands = np.add.reduceat(power, _edges(size, clip.rate), axis=1)[:, :BANDS]
    level = bands.sum(axis=1)
    if level.max() <= 0:
        return None
    loud = np.flatnonzero(level > level.max() * 10 ** (-FLOOR / 10))
    bands = bands[loud[0] : loud[-1] + 1]
    if len(bands) < MOMENTS:
        return None
    decibels = 10 * np.log10(np.maximum(bands, bands.max() * 10 ** (-FLOOR / 10)))
    cuts = np.linspace(0, len(decibels), MOMENTS + 1).astype(int)
    spans = np.add.reduceat(decibels, cuts[:-1], axis=0) / np.diff(cuts)[:, None]
    vector = (spans - spans.mean(axis=0)).ravel()
    length = float(np.linalg.norm(vector))
    if length < 1e-3:
        return None
    return (vector / length).astype(np.float32), len(bands) * HOP


def near_sounds(a: Sequence[Clip], b: Sequence[Clip], threshold: float) -> list[Pair]:
    """(i, j, cosine of the fingerprints) of all pairs of clips at or above `threshold`, in order; exact, by blocks.

    Clips that have no fingerprint, and pairs whose sounding parts differ by more than a tenth in length, are no pair.
    """
    return near_prints([fingerprint(clip) for clip in a], [fingerprint(clip) for clip in b], threshold)


def near_prints(
    a: Sequence[tuple[np.ndarray, float] | None], b: Sequence[tuple[np.ndarray, float] | None], threshold: float
) -> list[Pair]:
    """`near_sounds` for fingerprints that are there already (2 kB each), so that no audio has to stay in memory."""
    import numpy as np

    left, right = [i for i, one in enumerate(a) if one], [j for j, one in enumerate(b) if one]
    if not left or not right:
        return []
    vectors = np.stack([one[0] for one in b if one])
    seconds = np.array([one[1] for one in b if one])
    found: list[Pair] = []
    for start in range(0, len(left), BLOCK):
        places = left[start : start + BLOCK]
        block = [one for place in places if (one := a[place])]
        cosines = np.stack([one[0] for one in block]) @ vectors.T
        long = np.array([one[1] for one in block])[:, None]
        alike = np.abs(long - seconds) <= STRETCH * np.maximum(long, seconds)
        for row, column in zip(*np.nonzero((cosines >= threshold) & alike)):
            found.append((places[row], right[column], min(1.0, float(cosines[row, column]))))
    return sorted(found)


def _edges(size: int, rate: int) -> np.ndarray:
    """First spectrum bin of each band, equal steps in mel (O'Shaughnessy), and of what lies above the last."""
    import numpy as np

    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (LOW, HIGH))
    mel = np.linspace(low, high, BANDS + 1)
    return np.round(700 * (10 ** (mel / 2595) - 1) * size / rate).astype(int)
