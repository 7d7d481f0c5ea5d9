"""Percentile intervals over items that come in clusters.  Knows weights and numbers; not what they measure."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError

MIN_VALID_SHARE = 0.95  # share of draws that must give a value


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval; None: too few draws gave a value, or there is one cluster only."""

    value: float
    low: float | None
    high: float | None


def cluster_bootstrap_weights(
    clusters: Sequence[Hashable], draws: int, seed: int | np.random.SeedSequence
) -> Iterator[np.ndarray]:
    """Bootstrap draws over whole clusters: for each, how often every item (n,) is in it, int64.

    Clusters are numbered in sorted order of their names, so a draw depends on what an item's cluster is called and not
    on where the item stands (Davison and Hinkley 1997, 3.8: resample the independent units).
    """
    if draws < 1:
        raise UndersongError(f"{draws} bootstrap draws give no interval; ask for at least 1, better 1000.")
    names = sorted(set(clusters), key=str)
    positions = {name: i for i, name in enumerate(names)}
    index = np.array([positions[name] for name in clusters], dtype=np.int64)
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[index]


def percentile_interval(value: float, bootstrap_values: np.ndarray, clusters: int, level: float = 0.95) -> Interval:
    """Percentile interval of `drawn` (draws,), without the draws that had no value (NaN)."""
    if not 0 < level < 1:
        raise UndersongError(f"A confidence level lies between 0 and 1, not at {level}; give for example 0.95.")
    finite = bootstrap_values[np.isfinite(bootstrap_values)]
    if clusters < 2 or len(finite) < MIN_VALID_SHARE * len(bootstrap_values):
        return Interval(value, None, None)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
