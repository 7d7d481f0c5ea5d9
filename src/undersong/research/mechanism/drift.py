"""Representation drift: relative change and debiased linear CKA of hidden states per layer, base against tuned
model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undersong.statistics.bootstrap import cluster_bootstrap_weights
from undersong.statistics.cka import linear_cka
from undersong.types import UndersongError

DRAWS = 1000


@dataclass(frozen=True)
class RepresentationDrift:
    """Drift of each layer, (layers + 1,).

    Attributes:
        relative: Mean over prompts of |after - before| / |before|.
        low: Lower end of its 95 % interval over clusters.
        high: Upper end of its 95 % interval over clusters.
        cka: Debiased linear CKA of both states, which may lie slightly below 0; NaN if they do not vary, or if there
            are fewer than 4 prompts. The biased estimate is large for unrelated states with fewer prompts than
            dimensions.
        input_difference: Largest absolute difference at the decoder's input.
    """

    relative: np.ndarray
    low: np.ndarray
    high: np.ndarray
    cka: np.ndarray
    input_difference: float


def measure_drift(before: np.ndarray, after: np.ndarray, clusters: Sequence[str], seed: int = 0) -> RepresentationDrift:
    """Measure the drift between states (layers + 1, prompts, dim) of the same prompts.

    Args:
        before: States of the base.
        after: States of the tuned model.
        clusters: Cluster of each prompt.
        seed: Seed of the bootstrap.

    Raises:
        UndersongError: Shapes differ, or states are not finite.
    """
    if before.shape != after.shape or before.shape[1] != len(clusters):
        raise UndersongError(
            f"States of shape {before.shape} and {after.shape} of {len(clusters)} prompts cannot be compared; "
            "give both models the same prompts."
        )
    for name, states in (("base", before), ("tuned model", after)):
        if not np.isfinite(states).all():
            raise UndersongError(f"The {name} has states that are not finite; check its dtype.")
    relative = np.stack([_relative_change(a, b) for a, b in zip(before, after)])
    low = high = np.full(len(relative), np.nan)
    if len(set(clusters)) > 1:
        counts = np.stack(list(cluster_bootstrap_weights(clusters, DRAWS, seed)))
        low, high = np.percentile(counts @ relative.T / counts.sum(axis=1, keepdims=True), [2.5, 97.5], axis=0)
    cka = np.array([_debiased_cka(a, b) for a, b in zip(before, after)])
    return RepresentationDrift(relative.mean(axis=1), low, high, cka, float(np.abs(after[0] - before[0]).max()))


def _relative_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Length of the difference over the length of the state before, (prompts,)."""
    a, b = before.astype(np.float64), after.astype(np.float64)
    return np.linalg.norm(b - a, axis=1) / np.maximum(np.linalg.norm(a, axis=1), np.finfo(np.float64).tiny)


def _debiased_cka(before: np.ndarray, after: np.ndarray) -> float:
    if len(before) < 2 or not (np.ptp(before, axis=0).any() and np.ptp(after, axis=0).any()):
        return float("nan")
    debiased = linear_cka(before, after).debiased
    return float("nan") if debiased is None else debiased
