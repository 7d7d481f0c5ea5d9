"""Random-effects meta-analysis: mean of estimates whose true values differ, its interval, and how much they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np

from undersong.extras import check_package
from undersong.statistics.rates import critical_value
from undersong.types import UndersongError

TauMethod = Literal["paule-mandel", "dersimonian-laird"]
METHOD_NAMES = {"paule-mandel": "Paule-Mandel", "dersimonian-laird": "DerSimonian-Laird"}
STATSMODELS_METHODS = {"paule-mandel": "iterated", "dersimonian-laird": "chi2"}
MIN_PREDICTION_UNITS = 3  # Student's quantile of a prediction interval has units - 2 degrees of freedom
NOTE_SINGLE = "There is only one independent unit, so there is no interval: nothing shows how units differ."
NOTE_EQUAL = "All {units} units have the same estimate and no run noise is known, so there is no interval and no test."
NOTE_NO_REPLICATES = (
    "No unit has two runs, so run noise is unknown: the interval is over units, and how much their true effects "
    "differ cannot be told apart from run noise."
)
NOTE_NO_NOISE = (
    "The runs of each unit agree exactly, so run noise is unknown: the interval is over units, and how much their "
    "true effects differ cannot be told apart from run noise."
)
NOTE_FEW = "With {units} units there is no prediction interval; it needs {needed}."


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """How much the true effects of units differ.

    Attributes:
        q: Cochran's Q.
        df: Its degrees of freedom, units - 1.
        p: P value of Q against no difference at all.
        tau: Standard deviation of the true effects, in the unit of the effects.
        i_squared: Share of the spread of the estimates that is not run noise, in [0, 1].
    """

    q: float
    df: int
    p: float
    tau: float
    i_squared: float


@dataclass(frozen=True, slots=True)
class MetaAnalysis:
    """Mean effect over `units` independent units.

    `low` and `high` hold for the mean over the population of units; `prediction_low` and `prediction_high` for the true
    effect of one more unit. What cannot be estimated is None, and `note` says why.
    """

    units: int
    mean: float
    low: float | None
    high: float | None
    p: float | None
    weights: tuple[float, ...]  # of the units; their sum is 1
    heterogeneity: Heterogeneity | None
    prediction_low: float | None
    prediction_high: float | None
    method: str
    note: str = ""


def pooled_variances(groups: Sequence[Sequence[float]]) -> list[float] | None:
    """Variance of each group's mean, from the variance of one value pooled over all groups.

    Units of a study have two to five runs. Their own variances are too noisy for weights: three equal runs would weigh
    infinitely much. Pooling takes run noise as equal in all groups (simulated in `tests/statistics/test_meta_analysis`:
    the interval keeps its level if it is not).

    Returns None if no group has two values, or if all groups agree exactly.
    """
    df = sum(len(values) - 1 for values in groups)
    if df == 0:
        return None
    squares = sum(float(((np.asarray(values) - np.mean(values)) ** 2).sum()) for values in groups)
    return None if sqrt(squares / df) < 1e-12 else [squares / df / len(values) for values in groups]


def random_effects(
    effects: Sequence[float],
    variances: Sequence[float] | None,
    level: float = 0.95,
    method: TauMethod = "paule-mandel",
    limits: tuple[float, float] | None = None,
) -> MetaAnalysis:
    """Combine one estimate per unit by random effects, with Hartung and Knapp's interval.

    The interval takes Student's quantile with units - 1 degrees of freedom, and is never narrower than with the
    variance of the random-effects model (Röver, Knapp and Friede 2015, BMC Medical Research Methodology 15:99). The
    prediction interval has units - 2 degrees of freedom (Higgins, Thompson and Spiegelhalter 2009).

    Args:
        effects: Estimate of each unit.
        variances: Variance of each estimate; None if it is unknown. All units then count alike, and the interval is
            Student's over the units.
        level: Confidence level.
        method: Estimator of the variance between units.
        limits: Range of a possible effect; intervals are cut there.

    Raises:
        UndersongError: There are no units, the lengths differ, or a number is not finite; or statsmodels
            (extra `studies`) is not installed.
    """
    values = np.asarray(effects, dtype=np.float64)
    units = len(values)
    noise = np.ones(units) if variances is None else np.asarray(variances, dtype=np.float64)
    if units == 0 or len(noise) != units:
        raise UndersongError(f"There are {units} effects and {len(noise)} variances; give one of each per unit.")
    if not (np.isfinite(values).all() and np.isfinite(noise).all() and (noise > 0).all()):
        raise UndersongError("An effect or variance is not a finite number; measure it again.")
    name = "mean over units, Student's t"
    if units == 1:
        return MetaAnalysis(1, float(values[0]), None, None, None, (1.0,), None, None, None, name, NOTE_SINGLE)
    if variances is None and np.ptp(values) < 1e-12:
        return MetaAnalysis(
            units, float(values[0]), None, None, None, (1 / units,) * units, None, None, None, name,
            NOTE_EQUAL.format(units=units),
        )  # fmt: skip
    check_package("statsmodels", "A random-effects analysis")
    from scipy import stats
    from statsmodels.stats.meta_analysis import combine_effects

    # With unknown variances any equal ones give Student's interval: scaled so that all of the spread is within units.
    scaled = noise * float(values.var(ddof=1)) if variances is None else noise
    with np.errstate(divide="ignore"):  # of I squared, where all effects are equal
        fit = combine_effects(values, scaled, method_re=STATSMODELS_METHODS[method], use_t=True)
    if fit.tau2 > 0:
        mean, weights, variance = fit.mean_effect_re, fit.weights_rel_re, max(fit.var_hksj_re, fit.sd_eff_w_re**2)
    else:  # statsmodels goes on with a negative variance between units
        mean, weights, variance = fit.mean_effect_fe, fit.weights_rel_fe, max(fit.var_hksj_fe, fit.sd_eff_w_fe**2)
    mean, error, weights = float(mean), sqrt(float(variance)), tuple(map(float, weights))
    floor, ceiling = limits if limits is not None else (-np.inf, np.inf)

    def cut(half: float) -> tuple[float, float]:
        return max(floor, mean - half), min(ceiling, mean + half)

    low, high = cut(critical_value(level, units - 1) * error)
    p = float(2 * stats.t.sf(abs(mean) / error, units - 1))
    if variances is None:
        return MetaAnalysis(units, mean, low, high, p, weights, None, None, None, name, NOTE_NO_REPLICATES)
    tau_squared, q = max(0.0, float(fit.tau2)), float(fit.q)
    heterogeneity = Heterogeneity(
        q, units - 1, float(stats.chi2.sf(q, units - 1)), sqrt(tau_squared), max(0.0, 1 - (units - 1) / q) if q else 0.0
    )
    ends: tuple[float | None, float | None] = (None, None)
    if units >= MIN_PREDICTION_UNITS:
        ends = cut(critical_value(level, units - 2) * sqrt(tau_squared + error**2))
    note = "" if ends[0] is not None else NOTE_FEW.format(units=units, needed=MIN_PREDICTION_UNITS)
    name = f"random effects ({METHOD_NAMES[method]}), Hartung-Knapp interval"
    return MetaAnalysis(units, mean, low, high, p, weights, heterogeneity, *ends, name, note)
