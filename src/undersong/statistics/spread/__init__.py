"""How far runs differ, and where that comes from: run noise, and the variance split into its sources."""

from undersong.statistics.spread.components import Components, RunLabels, variance_components
from undersong.statistics.spread.noise import RunNoise, run_noise
from undersong.statistics.spread.strata import Component

__all__ = ["Component", "Components", "RunLabels", "RunNoise", "run_noise", "variance_components"]
