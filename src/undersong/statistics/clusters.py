"""What clusters do to a mean: the design effect.  Knows values and cluster labels; does not know what they measure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.statistics.critical import critical_value
from undersong.types import UndersongError


@dataclass(frozen=True, slots=True)
class ClusterDesign:
    """How much `n` values in `clusters` clusters tell about their mean: as much as `effective_n` independent ones."""

    n: int
    clusters: int
    design_effect: float

    @property
    def effective_n(self) -> float:
        """n over the design effect (Kish 1965): at most n, and seldom a whole number."""
        return self.n / self.design_effect

    def critical_value(self, level: float) -> float:
        """Student's t with clusters - 1 degrees of freedom, because the design effect is itself an estimate.

        Normal where nothing was estimated: every item is its own cluster, or there is only one cluster.
        """
        return critical_value(level, None if self.clusters in (1, self.n) else self.clusters - 1)


def label_codes(labels: Sequence[Hashable]) -> np.ndarray:
    """Labels (n,) -> integers (n,), numbered in order of appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)


def cluster_design(values: np.ndarray, labels: Sequence[Hashable]) -> ClusterDesign:
    """Design effect of the mean of `values` (n,) whose clusters are `labels` (n,).

    Clustered variance of a ratio estimator (Kish 1965) with the small-sample factor C / (C - 1), over the variance that
    n independent values would have; floored at 1, so that clusters never make an interval narrower.  Where the variance
    cannot be estimated (all values equal, or one cluster) n / C is taken: each cluster counts as one item, the
    conservative end.
    """
    n = len(values)
    if n == 0:
        raise UndersongError("There are no outcomes to take a rate of; check that the selection is not empty.")
    if len(labels) != n:
        raise UndersongError(f"There are {n} outcomes and {len(labels)} cluster labels; give one label an outcome.")
    index = label_codes(labels)
    count = int(index.max()) + 1
    if count == 1 or np.ptp(values) == 0:
        return ClusterDesign(n, count, n / count)
    residuals = values - values.mean()
    independent = float(residuals @ residuals) / (n * (n - 1))
    totals = np.bincount(index, weights=residuals)
    clustered = count / (count - 1) * float(totals @ totals) / n**2
    return ClusterDesign(n, count, max(1.0, clustered / independent))
