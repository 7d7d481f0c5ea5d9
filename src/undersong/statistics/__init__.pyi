from .agreement import (
    closest_overlap as closest_overlap,
)
from .agreement import (
    kappa as kappa,
)
from .agreement import (
    kappa_interval as kappa_interval,
)
from .agreement import (
    spearman as spearman,
)
from .balance import (
    Balance as Balance,
)
from .balance import (
    Imbalance as Imbalance,
)
from .balance import (
    group_balance as group_balance,
)
from .balance import (
    imbalance as imbalance,
)
from .balance import (
    jaccard as jaccard,
)
from .balance import (
    standardized_difference as standardized_difference,
)
from .bootstrap import (
    Interval as Interval,
)
from .bootstrap import (
    cluster_bootstrap_weights as cluster_bootstrap_weights,
)
from .bootstrap import (
    percentile_interval as percentile_interval,
)
from .bounded_mean import (
    BOUND_CONFIDENCE as BOUND_CONFIDENCE,
)
from .bounded_mean import (
    lower_mean_bound as lower_mean_bound,
)
from .bounded_mean import (
    mean_tail as mean_tail,
)
from .bounded_mean import (
    units_to_exclude as units_to_exclude,
)
from .bounded_mean import (
    upper_mean_bound as upper_mean_bound,
)
from .cka import (
    Cka as Cka,
)
from .cka import (
    linear_cka as linear_cka,
)
from .corrected_rise import (
    CorrectedRise as CorrectedRise,
)
from .corrected_rise import (
    estimate_corrected_rise as estimate_corrected_rise,
)
from .event_steps import (
    MedianStep as MedianStep,
)
from .event_steps import (
    first_crossing as first_crossing,
)
from .event_steps import (
    median_step as median_step,
)
from .exceedances import (
    LowQuantile as LowQuantile,
)
from .exceedances import (
    low_quantile as low_quantile,
)
from .exceedances import (
    predicted_count as predicted_count,
)
from .judge_correction import (
    CorrectedValue as CorrectedValue,
)
from .judge_correction import (
    LabeledCell as LabeledCell,
)
from .judge_correction import (
    LabeledReplies as LabeledReplies,
)
from .judge_correction import (
    corrected_difference as corrected_difference,
)
from .judge_correction import (
    corrected_rate as corrected_rate,
)
from .judge_correction import (
    error_share as error_share,
)
from .judge_correction import (
    labeled_cells as labeled_cells,
)
from .mean_squares import (
    VarianceComponent as VarianceComponent,
)
from .meta_analysis import (
    Heterogeneity as Heterogeneity,
)
from .meta_analysis import (
    MetaAnalysis as MetaAnalysis,
)
from .meta_analysis import (
    pooled_variances as pooled_variances,
)
from .meta_analysis import (
    random_effects as random_effects,
)
from .mixed_model import (
    MixedModel as MixedModel,
)
from .mixed_model import (
    RandomEffect as RandomEffect,
)
from .mixed_model import (
    fit_mixed_model as fit_mixed_model,
)
from .multiple_testing import (
    holm as holm,
)
from .multiple_testing import (
    holm_levels as holm_levels,
)
from .paired import (
    PairedComparison as PairedComparison,
)
from .paired import (
    compare_paired as compare_paired,
)
from .paired import (
    mcnemar_exact as mcnemar_exact,
)
from .paired import (
    newcombe_paired as newcombe_paired,
)
from .paired import (
    sign_flip_test as sign_flip_test,
)
from .power import (
    detectable_difference as detectable_difference,
)
from .power import (
    units_needed as units_needed,
)
from .rates import (
    Rate as Rate,
)
from .rates import (
    RateBounds as RateBounds,
)
from .rates import (
    bounds_sentence as bounds_sentence,
)
from .rates import (
    clustered_mean as clustered_mean,
)
from .rates import (
    clustered_mean_p as clustered_mean_p,
)
from .rates import (
    clustered_rate as clustered_rate,
)
from .rates import (
    rate_bounds as rate_bounds,
)
from .rates import (
    wilson_interval as wilson_interval,
)
from .regression import (
    MIN_RANK_POINTS as MIN_RANK_POINTS,
)
from .regression import (
    PredictorFit as PredictorFit,
)
from .regression import (
    RegressionResult as RegressionResult,
)
from .regression import (
    correlate_with_outcome as correlate_with_outcome,
)
from .regression import (
    too_few_points as too_few_points,
)
from .rise_bounds import (
    RiseEstimate as RiseEstimate,
)
from .rise_bounds import (
    estimate_rise as estimate_rise,
)
from .rise_bounds import (
    prompts_needed as prompts_needed,
)
from .run_bounds import (
    RunBounds as RunBounds,
)
from .run_bounds import (
    bound_change_from_base as bound_change_from_base,
)
from .run_bounds import (
    bound_run_mean as bound_run_mean,
)
from .run_bounds import (
    prompt_interval as prompt_interval,
)
from .run_bounds import (
    run_mean_p as run_mean_p,
)
from .runs import (
    RunDifference as RunDifference,
)
from .runs import (
    RunKey as RunKey,
)
from .runs import (
    RunMean as RunMean,
)
from .runs import (
    RunNoise as RunNoise,
)
from .runs import (
    RunPair as RunPair,
)
from .runs import (
    crossed_mean as crossed_mean,
)
from .runs import (
    mean_runs as mean_runs,
)
from .runs import (
    paired_runs as paired_runs,
)
from .runs import (
    run_noise as run_noise,
)
from .sequential import (
    SequentialLook as SequentialLook,
)
from .sequential import (
    look as look,
)
from .sequential import (
    looks_until_decision as looks_until_decision,
)
from .variance import (
    RunLabels as RunLabels,
)
from .variance import (
    VarianceComponents as VarianceComponents,
)
from .variance import (
    variance_components as variance_components,
)
