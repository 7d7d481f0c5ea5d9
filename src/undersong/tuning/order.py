"""The order that samples come in.  Knows numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def sample_order(count: int, length: int, seed: int | Sequence[int]) -> list[int]:
    """`length` indices into `count` samples: whole shuffles one after another, so every step is a full batch."""
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(count) for _ in range(-(-length // count))]
    return np.concatenate(rounds)[:length].tolist()
