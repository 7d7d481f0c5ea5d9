"""The one way many frames become one vector.  Knows numbers, not where they came from."""

from __future__ import annotations

import numpy as np

from undersong.types import Pooled


def mean_over(frames: np.ndarray) -> Pooled:
    """Mean of valid frames (frames, dim), summed in float64."""
    if len(frames) == 0:
        return Pooled(np.zeros(frames.shape[1:], dtype=np.float32), 0)
    return Pooled(frames.mean(axis=0, dtype=np.float64).astype(np.float32), len(frames))
