"""Which modules train and which do not, put aside and put back.  Knows modules; no model of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Everything in eval mode; afterwards every module in the mode that it was in, a quiet encoder too."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
