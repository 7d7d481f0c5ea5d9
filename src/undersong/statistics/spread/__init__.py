"""How far runs differ, and where that comes from: run noise, and the variance split into its sources."""

from undersong.statistics.spread.components import RunLabels, VarianceComponents, variance_components
from undersong.statistics.spread.noise import RunNoise, run_noise
from undersong.statistics.spread.strata import VarianceComponent

__all__ = ["VarianceComponent", "VarianceComponents", "RunLabels", "RunNoise", "run_noise", "variance_components"]
