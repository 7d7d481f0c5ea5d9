"""Mean of an estimate over the architectures, each with the same weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

from scipy import stats

from experiments.paper.agreement import NOTHING, Estimate
from experiments.paper.evidence import Contrast, Evidence
from undersong.pages import formatting


@dataclass(frozen=True)
class StratifiedMean:
    """Mean with its 95 % interval and the two-sided p value against 0, over `units` bases in all."""

    value: float
    low: float
    high: float
    p: float
    units: int

    @property
    def text(self) -> str:
        """The mean in points, with its interval."""
        return f"{formatting.points(self.value)} {formatting.bracket(self.low, self.high)}"


def stratified_mean(estimates: Sequence[Estimate]) -> StratifiedMean | None:
    """Mean of independent estimates with equal weights, by the spread of the units within each (Welch-Satterthwaite).

    Returns:
        The mean; None without estimates, or if one of them has a single unit or units without any spread.
    """
    if not estimates or any(one.sd is None or one.units < 2 for one in estimates):
        return None
    variances = [(one.sd or 0.0) ** 2 / one.units for one in estimates]
    freedom = sum(variances) ** 2 / sum(v**2 / (one.units - 1) for v, one in zip(variances, estimates))
    value, error = fmean(one.value for one in estimates), sqrt(sum(variances)) / len(estimates)
    half = float(stats.t.ppf(0.975, freedom)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    return StratifiedMean(value, value - half, value + half, p, sum(one.units for one in estimates))


def mean_over(contrast: Contrast, evidence: Evidence, architectures: Sequence[str]) -> StratifiedMean | None:
    """Mean of a contrast over architectures; None if one of them has too little to show."""
    found = [contrast.estimate(evidence, name, NOTHING) for name in architectures]
    return stratified_mean([one for one in found if one is not None]) if None not in found else None
