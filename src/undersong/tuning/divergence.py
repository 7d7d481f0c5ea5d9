"""Divergence of a training that its log shows although every number in it is finite.

Does not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

MIN_STEPS = 8  # with fewer, a quarter is one batch
MAX_RISE = 2.0  # nats by which every batch of the last quarter of the steps lies above the mean of the best quarter
DEAD_LOSS = 0.1  # nats, above which a loss without a gradient is no task that was learned


def divergence(log: Sequence[Mapping[str, float]]) -> str | None:
    """Say how a training diverged, by its log of one line for each step; None if it did not.

    It diverged if the loss of its last quarter is far above that of an earlier one, or if it has no gradient any more
    and a loss that is not small.
    """
    losses = [line["loss"] for line in log if "loss" in line]
    if len(losses) < MIN_STEPS:
        return None
    size = len(losses) // 4
    quarters = [fmean(losses[start : start + size]) for start in range(0, len(losses) - size + 1, size)]
    last, best = fmean(losses[-size:]), min(quarters)
    if min(losses[-size:]) > best + MAX_RISE:
        return f"its loss rose from {best:.3g} to {last:.3g}"
    gradients = [line["grad_norm"] for line in log[-size:] if "grad_norm" in line]
    if gradients and not any(gradients) and last > DEAD_LOSS:
        return f"its gradients are 0 at a loss of {last:.3g}"
    return None


def read_divergence(folder: Path) -> str | None:
    """Say how the training of a folder that `tune` wrote diverged; None if it did not."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return divergence([json.loads(line) for line in lines])
