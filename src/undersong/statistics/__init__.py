"""Intervals, paired tests, run-level inference, multiplicity, agreement, balance: pure numbers, no files, no audio."""

from undersong.statistics.agreement import closest_overlap, kappa, kappa_interval, spearman
from undersong.statistics.balance import Balance, Imbalance, balance, imbalance, jaccard, standardized_difference
from undersong.statistics.bootstrap import Interval, cluster_bootstrap_weights, percentile_interval
from undersong.statistics.cka import Cka, linear_cka
from undersong.statistics.coverage import CoverageSummary, wilson_coverage, wilson_coverage_range
from undersong.statistics.multiple_testing import holm, holm_levels
from undersong.statistics.paired import (
    PairedComparison,
    compare_paired,
    mcnemar_exact,
    newcombe_paired,
    sign_flip_test,
)
from undersong.statistics.power import detectable_difference, units_needed
from undersong.statistics.rates import Rate, RateBounds, bounds_sentence, clustered_rate, rate_bounds, wilson_interval
from undersong.statistics.regression import PredictorFit, RegressionResult, correlate_with_outcome
from undersong.statistics.rise_bounds import RiseEstimate, estimate_rise, prompts_needed
from undersong.statistics.runs import RunDifference, RunKey, RunMean, RunPair, mean_runs, paired_runs
from undersong.statistics.spread import (
    RunLabels,
    RunNoise,
    VarianceComponent,
    VarianceComponents,
    run_noise,
    variance_components,
)

__all__ = [
    "Balance",
    "RateBounds",
    "Cka",
    "VarianceComponent",
    "VarianceComponents",
    "CoverageSummary",
    "Imbalance",
    "Interval",
    "PairedComparison",
    "RegressionResult",
    "PredictorFit",
    "Rate",
    "RiseEstimate",
    "RunDifference",
    "RunKey",
    "RunLabels",
    "RunMean",
    "RunNoise",
    "RunPair",
    "balance",
    "rate_bounds",
    "cluster_bootstrap_weights",
    "clustered_rate",
    "compare_paired",
    "detectable_difference",
    "bounds_sentence",
    "prompts_needed",
    "holm",
    "holm_levels",
    "imbalance",
    "percentile_interval",
    "jaccard",
    "kappa",
    "kappa_interval",
    "linear_cka",
    "mcnemar_exact",
    "mean_runs",
    "newcombe_paired",
    "closest_overlap",
    "paired_runs",
    "correlate_with_outcome",
    "estimate_rise",
    "run_noise",
    "sign_flip_test",
    "spearman",
    "standardized_difference",
    "units_needed",
    "variance_components",
    "wilson_interval",
    "wilson_coverage",
    "wilson_coverage_range",
]
