"""Intervals, paired tests, run-level inference, multiplicity, agreement, balance: pure numbers, no files, no audio."""

from undersong.statistics.agreement import kappa, kappa_interval, overlap_closest, spearman
from undersong.statistics.balance import Balance, Imbalance, balance, imbalance, jaccard, standardised
from undersong.statistics.bootstrap import Interval, cluster_draws, interval
from undersong.statistics.cka import Cka, linear_cka
from undersong.statistics.coverage import Coverage, wilson_coverage, wilson_coverages
from undersong.statistics.joint import Prediction, Predictor, predict
from undersong.statistics.multiplicity import holm, holm_levels
from undersong.statistics.paired import Paired, compare_paired, mcnemar_exact, newcombe_paired, sign_flip
from undersong.statistics.power import detectable, units_needed
from undersong.statistics.rates import Bounds, Rate, bounds, clustered_rate, either_way, wilson
from undersong.statistics.rise import Rise, enough, rise_of
from undersong.statistics.runs import RunDifference, RunKey, RunMean, RunPair, mean_runs, paired_runs
from undersong.statistics.spread import (
    Component,
    Components,
    RunLabels,
    RunNoise,
    run_noise,
    variance_components,
)

__all__ = [
    "Balance",
    "Bounds",
    "Cka",
    "Component",
    "Components",
    "Coverage",
    "Imbalance",
    "Interval",
    "Paired",
    "Prediction",
    "Predictor",
    "Rate",
    "Rise",
    "RunDifference",
    "RunKey",
    "RunLabels",
    "RunMean",
    "RunNoise",
    "RunPair",
    "balance",
    "bounds",
    "cluster_draws",
    "clustered_rate",
    "compare_paired",
    "detectable",
    "either_way",
    "enough",
    "holm",
    "holm_levels",
    "imbalance",
    "interval",
    "jaccard",
    "kappa",
    "kappa_interval",
    "linear_cka",
    "mcnemar_exact",
    "mean_runs",
    "newcombe_paired",
    "overlap_closest",
    "paired_runs",
    "predict",
    "rise_of",
    "run_noise",
    "sign_flip",
    "spearman",
    "standardised",
    "units_needed",
    "variance_components",
    "wilson",
    "wilson_coverage",
    "wilson_coverages",
]
