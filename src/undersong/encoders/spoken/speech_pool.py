"""From the valid frames of one clip, window by window, to its vector.  Knows numbers, not where they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undersong.types import Pooled


@dataclass(frozen=True, slots=True)
class Moments:
    """What is kept of the frames of one window: hours of sound need no more memory than a second of it.

    `mean` and `squares` (sum of squared deviations from it) are (dim,) float64, `last` the last valid frame.
    """

    frames: int
    mean: np.ndarray
    squares: np.ndarray
    last: np.ndarray


def moments(frames: np.ndarray) -> Moments:
    """Of valid frames (frames, dim), at least one."""
    values = frames.astype(np.float64)
    mean = values.mean(axis=0)
    return Moments(len(frames), mean, np.square(values - mean).sum(axis=0), values[-1])


def joined(parts: Sequence[Moments]) -> Moments:
    """Of the frames of all windows in order, as if taken together (Chan, Golub & LeVeque 1983)."""
    whole = parts[0]
    for part in parts[1:]:
        n = whole.frames + part.frames
        step = part.mean - whole.mean
        mean = whole.mean + step * (part.frames / n)
        squares = whole.squares + part.squares + np.square(step) * (whole.frames * part.frames / n)
        whole = Moments(n, mean, squares, part.last)
    return whole


def pooled(parts: Sequence[Moments], pool: str) -> Pooled:
    """The vector of one clip by one of `options.POOLS`.

    (dim,) for `mean` and `last`, (2 dim,) for `mean+std` (deviation over frames, by n).
    Without windows there is no vector and 0 frames.
    """
    if not parts:
        return Pooled(np.zeros(0, dtype=np.float32), 0)
    whole = joined(parts)
    if pool == "last":
        vector = whole.last
    elif pool == "mean+std":
        vector = np.concatenate([whole.mean, np.sqrt(whole.squares / whole.frames)])
    else:
        vector = whole.mean
    return Pooled(vector.astype(np.float32), whole.frames)
