"""How much of one set of numbers lies below another's quantiles, with weights.  Knows numbers; not that they are
distances.

The curve is the receiver operating characteristic of "small": share of the set below the q-quantile of the reference,
as q goes from 0 to 1; its area is the chance that a random item of the set is below a random one of the reference,
equals counting half (Mann and Whitney 1947).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError


@dataclass(frozen=True, slots=True)
class Placed:
    """Several sets of numbers on one scale: all `values` (u,), sorted, and each set's places among them."""

    values: np.ndarray
    places: tuple[np.ndarray, ...]


def placed(sets: Sequence[np.ndarray]) -> Placed:
    """Raises UndersongError where a set is empty or holds a number that is not finite."""
    for numbers in sets:
        if len(numbers) == 0 or not np.isfinite(numbers).all():
            raise UndersongError("Sets to compare need at least one number each, all finite; leave out what has none.")
    values, places = np.unique(np.concatenate(sets), return_inverse=True)
    return Placed(values.astype(np.float64), tuple(np.split(places, np.cumsum([len(s) for s in sets])[:-1])))


def shares(scale: Placed, which: int, weights: np.ndarray) -> np.ndarray:
    """(u,) share of set number `which` at each value, every item with its weight."""
    counts = np.bincount(scale.places[which], weights=weights, minlength=len(scale.values))
    return counts / counts.sum()


def chance_below(mine: np.ndarray, reference: np.ndarray) -> float:
    """The chance that an item with shares `mine` (u,) is below one with shares `reference` (u,); equals count half."""
    return float(reference @ (np.cumsum(mine) - mine / 2))


@dataclass(frozen=True, slots=True)
class Below:
    """At each asked quantile of the reference, all (q,): its value, the share of the set below it, and its mass there.

    `mass`: the mean over the whole set of how far an item is below that value, 0 for those that are not.  Of items
    equal to the value the part counts that the quantile takes of the reference's own.
    """

    at: np.ndarray
    share: np.ndarray
    mass: np.ndarray


def below(values: np.ndarray, mine: np.ndarray, reference: np.ndarray, quantiles: np.ndarray) -> Below:
    """`values` (u,) sorted with shares `mine` and `reference` (u,); `quantiles` (q,) within 0 to 1."""
    own = np.flatnonzero(reference > 0)
    reach = np.cumsum(reference[own])
    # A sum of shares is 1 but for rounding, as is q x n of a count.
    place = own[np.minimum(np.searchsorted(reach, quantiles - 1e-12), len(own) - 1)]
    before = np.cumsum(reference)[place] - reference[place]
    part = np.clip((quantiles - before) / reference[place], 0, 1)
    under = np.cumsum(mine)[place] - mine[place]
    at = values[place]
    weighted = np.cumsum(mine * values)[place] - mine[place] * at
    return Below(at, under + part * mine[place], np.maximum(0.0, at * under - weighted))
