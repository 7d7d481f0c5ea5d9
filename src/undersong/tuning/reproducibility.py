"""One place where global random state is touched: libraries that use it run inside `seeded` (DESIGN rule 11)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def temporary_seed(seed: int) -> Iterator[None]:
    """Python's, numpy's and torch's global generators seeded inside, and as they were outside."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
