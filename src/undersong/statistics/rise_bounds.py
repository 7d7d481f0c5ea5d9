"""One-sided confidence bounds for a rise of a rate between two models, for gates with a limit."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import ceil, isnan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from undersong.statistics.rates import ClusterDesign, as_binary, cluster_design, label_codes
from undersong.types import UndersongError

MAX_PROMPTS = 10_000_000  # prompts; nobody asks more


@dataclass(frozen=True, slots=True)
class RiseEstimate:
    """`up`, `down`: shares of the prompts with the outcome only after, and only before.

    `whole`: how many independent units there are if clusters change as wholes (Kish 1965), the worst case.
    """

    up: float
    down: float
    effective_clusters: float
    design: ClusterDesign  # of the differences

    @property
    def rise(self) -> float:
        """The share after less the share before, in [-1, 1]."""
        return self.up - self.down

    def upper_bound(self, confidence: float, sample_factor: float = 1.0) -> float:
        """The rise is at most this; `more`: with that many times the prompts and the same shares.

        Every cluster counts as one unit.  A design effect is estimated from the prompts that changed, and where few
        did it comes out too small: believed, it would rule out too much in up to 17 % of simulated cases, not 5 %.
        """
        return min(
            1.0,
            self.rise
            + self._half_width(self.up, self.down, self.effective_clusters * sample_factor, _tail(confidence)),
        )

    def lower_bound(self, confidence: float, sample_factor: float = 1.0) -> float:
        """The rise is at least this.  By the estimated design effect and Student's quantile: what is shown has many
        changed prompts to estimate it from."""
        from scipy.stats import norm

        tail = float(norm.sf(self.design.critical_value(1 - 2 * _tail(confidence))))
        return max(
            -1.0, self.rise - self._half_width(self.down, self.up, self.design.effective_n * sample_factor, tail)
        )

    def _half_width(self, rising: float, falling: float, n: float, tail: float) -> float:
        """How far the difference may lie in the direction in which the share `rising` is larger than it looks."""
        x, y = _exact_limits(rising, n, tail)[1] - rising, falling - _exact_limits(falling, n, tail)[0]
        rest = (1 - rising) * (1 - falling)
        correlation = (
            sqrt(rising * falling / rest) if rest > 0 else 1.0
        )  # they exclude each other: minus the correlation
        return sqrt(x * x + 2 * correlation * x * y + y * y)


def estimate_rise(before: ArrayLike, after: ArrayLike, clusters: Sequence[Hashable]) -> RiseEstimate:
    """Of outcomes `before` (n,) and `after` (n,) of the same prompts in the same order."""
    first, second = as_binary(before), as_binary(after)
    if len(first) != len(second):
        raise UndersongError(
            f"There are {len(first)} outcomes before and {len(second)} after; pair them by prompt first."
        )
    change = second - first
    design = cluster_design(change, clusters)
    sizes = np.bincount(label_codes(clusters)).astype(np.float64)
    effective_clusters = float(sizes.sum() ** 2 / (sizes @ sizes))
    return RiseEstimate(float(np.mean(change > 0)), float(np.mean(change < 0)), effective_clusters, design)


def prompts_needed(holds: Callable[[float], bool], n: int) -> int | None:
    """The fewest prompts with which `holds`, told how many times the `n` they are; None: 10 million are too few."""
    few, many = 0.0, 1.0
    while not holds(many):
        few, many = many, 2 * many
        if many * n > MAX_PROMPTS:
            return None
    while (many - few) * n > 0.5:
        middle = (few + many) / 2
        few, many = (few, middle) if holds(middle) else (middle, many)
    return ceil(many * n)


def _tail(confidence: float) -> float:
    if not 0.5 < confidence < 1:
        raise UndersongError(f"The confidence of a one-sided bound lies between 0.5 and 1, not at {confidence}.")
    return 1 - confidence


def _exact_limits(share: float, n: float, tail: float) -> tuple[float, float]:
    """Exact one-sided limits at `tail` each; `n` may be a fraction (an effective size).

    Two clusters ask for tails of 1e-200, at which SciPy's search for a root may give up with NaN: then 0 and 1, which
    they are within rounding, and which rule out nothing anywhere else.
    """
    from scipy.stats import beta

    hits = share * n
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits >= n else float(beta.isf(tail, hits + 1, n - hits))
    return min(0.0 if isnan(low) else low, share), max(1.0 if isnan(high) else high, share)
