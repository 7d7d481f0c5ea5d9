"""The one way many frames become one vector.  Knows numbers, not where they came from."""

from __future__ import annotations

import numpy as np

from undersong.types import PooledVector


def mean_pool(frames: np.ndarray) -> PooledVector:
    """Mean of valid frames (frames, dim), summed in float64."""
    if len(frames) == 0:
        return PooledVector(np.zeros(frames.shape[1:], dtype=np.float32), 0)
    return PooledVector(frames.mean(axis=0, dtype=np.float64).astype(np.float32), len(frames))
