"""How far runs differ, and where that comes from: run noise, and the variance split into its sources."""

from undersong.statistics.mean_squares import VarianceComponent
from undersong.statistics.spread.noise import RunNoise, run_noise
from undersong.statistics.variance import RunLabels, VarianceComponents, variance_components

__all__ = ["VarianceComponent", "VarianceComponents", "RunLabels", "RunNoise", "run_noise", "variance_components"]
