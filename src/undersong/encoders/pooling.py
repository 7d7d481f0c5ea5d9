"""Pooling of the valid frames of a clip to one vector; padding is cut off before, by the length of each window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undersong.types import PooledVector


@dataclass(frozen=True, slots=True)
class Moments:
    """Statistics of the frames of one window, so that hours of sound need no more memory than a second.

    `mean` and `squared_deviations` (their sum) are (dim,) float64, `last` is the last valid frame.
    """

    frames: int
    mean: np.ndarray
    squared_deviations: np.ndarray
    last: np.ndarray


def compute_moments(frames: np.ndarray) -> Moments:
    """Moments of valid frames (frames, dim), at least one."""
    rows = frames.astype(np.float64)
    mean = rows.mean(axis=0)
    return Moments(len(frames), mean, np.square(rows - mean).sum(axis=0), rows[-1])


def merge_moments(parts: Sequence[Moments]) -> Moments:
    """Moments of all windows together, in order (Chan, Golub & LeVeque 1983)."""
    total = parts[0]
    for part in parts[1:]:
        frames = total.frames + part.frames
        delta = part.mean - total.mean
        mean = total.mean + delta * (part.frames / frames)
        squared_deviations = (
            total.squared_deviations
            + part.squared_deviations
            + np.square(delta) * (total.frames * part.frames / frames)
        )
        total = Moments(frames, mean, squared_deviations, part.last)
    return total


def pool_moments(parts: Sequence[Moments], pool: str) -> PooledVector:
    """Pool the windows of one clip to a vector, by one of `spec.POOLS`.

    The vector is (dim,) for `mean` and `last`, and (2 dim,) for `mean+std` (standard deviation over frames, by n).
    Without windows it is empty, with 0 frames.
    """
    if not parts:
        return PooledVector(np.zeros(0, dtype=np.float32), 0)
    total = merge_moments(parts)
    if pool == "last":
        vector = total.last
    elif pool == "mean+std":
        vector = np.concatenate([total.mean, np.sqrt(total.squared_deviations / total.frames)])
    else:
        vector = total.mean
    return PooledVector(vector.astype(np.float32), total.frames)
