"""One-sided confidence bounds for the rise of a rate between two models, for gates with a limit."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import ceil, isnan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from undersong.statistics.rates import ClusterDesign, as_binary, cluster_design, label_codes
from undersong.types import UndersongError

MAX_PROMPTS = 10_000_000  # search limit of `prompts_needed`


@dataclass(frozen=True, slots=True)
class RiseEstimate:
    """Change of a rate on the same prompts.

    Attributes:
        up: Share of prompts with the outcome only after.
        down: Share of prompts with the outcome only before.
        effective_clusters: Number of independent units if clusters change as wholes (Kish 1965), the worst case.
        design: Cluster design of the differences.
    """

    up: float
    down: float
    effective_clusters: float
    design: ClusterDesign

    @property
    def rise(self) -> float:
        """Rate after minus rate before, in [-1, 1]."""
        return self.up - self.down

    def upper_bound(self, confidence: float, sample_factor: float = 1.0) -> float:
        """Upper confidence bound of the rise, with `sample_factor` times the prompts and the same shares.

        Every cluster counts as one unit. A design effect is estimated from the prompts that changed, and it comes out
        too small if few did: with it, the bound failed in up to 17 % of simulated cases instead of 5 %.
        """
        return min(
            1.0,
            self.rise
            + self._half_width(self.up, self.down, self.effective_clusters * sample_factor, _tail(confidence)),
        )

    def lower_bound(self, confidence: float, sample_factor: float = 1.0) -> float:
        """Lower confidence bound of the rise, with `sample_factor` times the prompts and the same shares.

        It uses the estimated design effect and Student's quantile: a rise that is proven has many changed prompts to
        estimate them from.
        """
        from scipy.stats import norm

        tail = float(norm.sf(self.design.critical_value(1 - 2 * _tail(confidence))))
        return max(
            -1.0, self.rise - self._half_width(self.down, self.up, self.design.effective_n * sample_factor, tail)
        )

    def _half_width(self, rising: float, falling: float, n: float, tail: float) -> float:
        """Distance from the estimate to its bound on the side where the share `rising` is larger than observed."""
        x, y = _exact_limits(rising, n, tail)[1] - rising, falling - _exact_limits(falling, n, tail)[0]
        rest = (1 - rising) * (1 - falling)
        # Minus the correlation: a prompt cannot change in both directions.
        correlation = sqrt(rising * falling / rest) if rest > 0 else 1.0
        return sqrt(x * x + 2 * correlation * x * y + y * y)


def estimate_rise(before: ArrayLike, after: ArrayLike, clusters: Sequence[Hashable]) -> RiseEstimate:
    """Estimate the rise from outcomes `before` (n,) and `after` (n,) of the same prompts, in the same order.

    Raises:
        UndersongError: The lengths differ.
    """
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
    """Fewest prompts for which `holds(factor)` is true, where `factor` times `n` is their number.

    Returns None if 10 million prompts are too few.
    """
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
    """Exact one-sided limits of a share, each at `tail`; `n` may be fractional (an effective sample size).

    Two clusters need tails of 1e-200, where SciPy's root search may return NaN. The limits are then 0 and 1, which is
    right up to rounding and excludes nothing in any other case.
    """
    from scipy.stats import beta

    hits = share * n
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits >= n else float(beta.isf(tail, hits + 1, n - hits))
    return min(0.0 if isnan(low) else low, share), max(1.0 if isnan(high) else high, share)
