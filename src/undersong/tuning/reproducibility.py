"""Reproducible training: sample order, global seeds, and module modes restored after evaluation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def sample_order(count: int, length: int, seed: int | Sequence[int]) -> list[int]:
    """`length` indices into `count` samples: consecutive shuffles, so that every step is a full batch."""
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(count) for _ in range(-(-length // count))]
    return np.concatenate(rounds)[:length].tolist()


@contextmanager
def temporary_seed(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch inside the context, and restore them afterwards."""
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


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Set all modules to eval mode, and restore each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
