"""Mixed model of runs: the mean over nested random effects, such as base, draw and seed, by restricted likelihood, and
over prompts as a crossed random effect if every run has a value of each prompt.

Without prompts and in a balanced design the estimates are those of the analysis of variance, and the interval is the
paired t interval over units. Bases may have other numbers of draws or seeds.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from undersong.extras import check_package
from undersong.research.statistics.mean_squares import crossed_mean_squares
from undersong.statistics.rates import critical_value, label_codes
from undersong.types import UndersongError

NEGLIGIBLE_SHARE = 1e-3  # of the variance of the values: a component below is at the edge, where optimizers stall
LIKELIHOOD_TOLERANCE = 1e-2  # log likelihood that leaving out a component at its edge may cost
TRIAL_SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)  # variances, of that of the values, that must not be likelier than 0
NOTE_EQUAL = "All runs agree exactly, so no mixed model can be fitted."
NOTE_NO_NOISE = "The runs of each {level} agree exactly, so no mixed model can be fitted: run noise is unknown."
NOTE_CONFOUNDED = "Every {level} has one {inner} only, so their spreads are one component, named {inner}."
NOTE_ZERO = "The standard deviation by {level} was estimated as 0."
NOTE_FAILED = "The mixed model did not converge, so only the plain reading over units is given."


@dataclass(frozen=True, slots=True)
class RandomEffect:
    """Standard deviation that one level adds, with the number of its groups."""

    name: str
    groups: int
    sd: float


@dataclass(frozen=True, slots=True)
class MixedModel:
    """Mean over runs with its interval, and the random effects from the outermost to the single run.

    If prompts vary, their effect and that of a run on a prompt follow. Without a fit, `mean`, `low` and `high` are
    None, `effects` is empty, and `note` says why.
    """

    runs: int
    mean: float | None
    low: float | None
    high: float | None
    effects: tuple[RandomEffect, ...]
    note: str = ""


def fit_mixed_model(
    levels: Mapping[str, Sequence[Hashable]],
    values: ArrayLike,
    residual: str = "seed",
    level: float = 0.95,
    limits: tuple[float, float] | None = None,
    crossed: str = "prompt",
) -> MixedModel | None:
    """Fit the mean of runs with nested random effects by REML (`statsmodels.MixedLM`), and prompts that cross them.

    The interval takes Student's quantile with the number of outermost groups - 1 as degrees of freedom; with prompts,
    with the smaller of that and the number of prompts - 1. A component that is estimated as 0 is left out and the model
    fitted again, if that does not lower the likelihood.

    Because every run has every prompt, the restricted likelihood is a product of two parts. That of the runs' means is
    fitted as without prompts. That of prompts has its maximum at the estimates of the analysis of variance. The
    variance of a prompt, divided by their number, adds to that of the mean.

    Args:
        levels: Label of each run by the name of the level, from the outermost to the innermost; an inner label counts
            within the outer ones.
        values: Result of each run, (runs,), such as paired differences of two arms; or of each prompt in each run,
            (runs, prompts). Prompts are independent: a cluster of prompts is one.
        residual: Name of what varies between the runs of an innermost group.
        level: Confidence level.
        limits: Range of a possible mean; the interval is cut there.
        crossed: Name of what the columns of `values` are.

    Returns:
        The model; None if there are no prompts, and no level has several groups of which one has several runs. The
        plain reading over units is then all there is.

    Raises:
        UndersongError: The labels do not fit the values, or a value is not finite; or statsmodels
            (extra `studies`) is not installed.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim not in (1, 2) or not table.size or any(len(labels) != len(table) for labels in levels.values()):
        raise UndersongError("A mixed model needs runs, and one label of each level per run.")
    if not np.isfinite(table).all():
        raise UndersongError("The result of a run is not a number; measure it again.")
    has_prompts = table.ndim == 2 and min(table.shape) > 1
    results = table.mean(axis=1) if table.ndim == 2 else table
    codes, notes = _separable_levels(levels, residual)
    if not codes and not has_prompts:
        return None
    spread = float(results.std())
    if spread < 1e-12:
        return MixedModel(len(results), None, None, None, (), NOTE_EQUAL)
    if codes:
        innermost, code = next(reversed(codes.items()))
        group_means = np.bincount(code, weights=results) / np.bincount(code)
        if float(np.abs(results - group_means[code]).max()) < 1e-12:
            return MixedModel(len(results), None, None, None, (), NOTE_NO_NOISE.format(level=innermost))
    units = int(next(iter(codes.values())).max()) + 1 if codes else len(results)
    fit, kept = _fit(codes, results / spread, residual)
    if fit is None:
        return MixedModel(len(results), None, None, None, (), " ".join([*notes, NOTE_FAILED]))
    notes += [NOTE_ZERO.format(level=name) for name in codes if name not in kept]
    variances = {name: variance * spread**2 for name, variance in fit.variances.items()}
    groups = {name: int(code.max()) + 1 for name, code in codes.items()} | {residual: len(results)}
    mean, error_square, df = fit.mean * spread, (fit.error * spread) ** 2, units - 1
    if has_prompts:
        crossing = _PromptVariances.of(table)
        if variances[residual] < crossing.per_run:
            notes.append(NOTE_ZERO.format(level=residual))
        variances[residual] = max(0.0, variances[residual] - crossing.per_run)
        variances |= {crossed: crossing.prompt, f"{residual} x {crossed}": crossing.residual}
        groups |= {crossed: table.shape[1], f"{residual} x {crossed}": table.size}
        notes += [NOTE_ZERO.format(level=crossed)] * (crossing.prompt == 0)
        error_square = max(error_square, crossing.per_run / len(results)) + crossing.prompt / table.shape[1]
        df = min(df, table.shape[1] - 1)
    half = critical_value(level, df) * sqrt(error_square)
    floor, ceiling = limits if limits is not None else (-np.inf, np.inf)
    effects = tuple(RandomEffect(name, count, sqrt(variances.get(name, 0.0))) for name, count in groups.items())
    return MixedModel(len(results), mean, max(floor, mean - half), min(ceiling, mean + half), effects, " ".join(notes))


@dataclass(frozen=True)
class _PromptVariances:
    """Variances of a prompt and of the residuals, and what the residuals add to the mean of one run."""

    prompt: float
    residual: float
    per_run: float

    @classmethod
    def of(cls, table: np.ndarray) -> _PromptVariances:
        """Estimates by restricted likelihood from `table` (runs, prompts): those of the analysis of variance.

        If the residuals vary more than the means of prompts would by them, the variance of a prompt is 0, and both mean
        squares are pooled.
        """
        _, columns, residuals = crossed_mean_squares(table)
        runs, prompts = table.shape
        prompt_square = runs * columns.value
        residual = residuals.value
        if prompt_square < residual:
            residual = (residuals.df * residual + columns.df * prompt_square) / (residuals.df + columns.df)
        return cls(max(0.0, prompt_square - residual) / runs, residual, residual / prompts)


def _separable_levels(
    levels: Mapping[str, Sequence[Hashable]], residual: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Codes of the nested groups of each level whose spread can be told apart, (runs,) each, and notes on the others.

    A level with the groups of the level outside it varies nothing by itself, and one with a group per run is the
    residual.
    """
    codes: dict[str, np.ndarray] = {}
    groups = 1
    path: list[tuple[Hashable, ...]] = [()] * len(next(iter(levels.values()), ()))
    for name, labels in levels.items():
        path = [(*outer, label) for outer, label in zip(path, labels)]
        code = label_codes(path)
        if (count := int(code.max()) + 1) == len(code) > groups:
            return codes, [NOTE_CONFOUNDED.format(level=name, inner=residual)]
        if count > groups:
            codes[name], groups = code, count
    return codes, []


@dataclass(frozen=True)
class _Fit:
    """One fit; `variances` are those of the levels and of the residual."""

    mean: float
    error: float
    variances: Mapping[str, float]
    log_likelihood: float
    converged: bool


def _fit(codes: Mapping[str, np.ndarray], values: np.ndarray, residual: str) -> tuple[_Fit | None, tuple[str, ...]]:
    """Fit all levels, and again without the smallest component while it is at its edge and the likelihood allows it.

    A balanced design needs no search. Returns the fit, or None if it did not converge, and the levels in it.
    """
    if (balanced := _balanced_fit(codes, values, residual)) is not None:
        return balanced, tuple(name for name in codes if balanced.variances[name] > 0)
    kept = tuple(codes)
    fit = _fit_levels(codes, values, residual)
    while kept and (not fit.converged or min(fit.variances[name] for name in kept) < NEGLIGIBLE_SHARE):
        smallest = min(kept, key=lambda name: fit.variances[name])
        fewer = tuple(name for name in kept if name != smallest)
        simpler = _fit_levels({name: codes[name] for name in fewer}, values, residual)
        trials = [
            _with_facts({name: codes[name] for name in kept}, values, {smallest: share, **simpler.variances}, 0.0)
            for share in (0.0, *TRIAL_SHARES)
        ]
        likelihoods = [fit.log_likelihood, *(trial.log_likelihood for trial in trials)]
        if max(likelihoods) > trials[0].log_likelihood + LIKELIHOOD_TOLERANCE:
            break
        fit, kept = simpler, fewer
    return (fit if fit.converged else None), kept


def _balanced_fit(codes: Mapping[str, np.ndarray], values: np.ndarray, residual: str) -> _Fit | None:
    """Restricted likelihood fit of `values` (runs,) in a balanced nested design; None if it is not balanced.

    The mean squares from the outermost level to the residual fall in expectation. Where they rise, they are pooled,
    weighted by their degrees of freedom, which gives the maximum of the restricted likelihood (Thompson 1962).
    """
    sizes = {name: np.bincount(code) for name, code in codes.items()}
    if any(len(set(size.tolist())) > 1 for size in sizes.values()):
        return None
    runs = len(values)
    parents = np.full(runs, values.mean())
    squares: list[list[float]] = []  # mean square, degrees of freedom, number of levels pooled
    per_group, groups = [int(size[0]) for size in sizes.values()] + [1], 1
    for code in (*codes.values(), np.arange(runs)):
        means = (np.bincount(code, weights=values) / np.bincount(code))[code]
        count = int(code.max()) + 1
        squares.append([float(((means - parents) ** 2).sum()) / (count - groups), count - groups, 1])
        parents, groups = means, count
        while len(squares) > 1 and squares[-1][0] > squares[-2][0]:
            (upper, upper_df, upper_levels), (lower, lower_df, lower_levels) = squares[-2:]
            df = upper_df + lower_df
            squares[-2:] = [[(upper * upper_df + lower * lower_df) / df, df, upper_levels + lower_levels]]
    pooled = [square for square, _, levels in squares for _ in range(int(levels))]
    variances = [(outer - inner) / size for outer, inner, size in zip(pooled, [*pooled[1:], 0.0], per_group)]
    by_name = dict(zip((*codes, residual), variances, strict=True))
    return _Fit(float(values.mean()), sqrt(pooled[0] / runs), by_name, 0.0, True)


def _fit_levels(codes: Mapping[str, np.ndarray], values: np.ndarray, residual: str) -> _Fit:
    """Fit the mean of `values` (runs,) with these levels; without levels, the mean of independent values."""
    if not codes:
        variance = float(values.var(ddof=1))
        return _with_facts(codes, values, {residual: variance}, sqrt(variance / len(values)), True)
    check_package("statsmodels", "A mixed model of runs")
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    outermost, *inner = codes
    groups = codes[outermost]
    components: Any = None
    if inner:
        rows = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
        inner_codes = [[np.unique(codes[name][group_rows]) for group_rows in rows] for name in inner]
        matrices = [
            [(codes[name][group_rows][:, None] == found).astype(float) for group_rows, found in zip(rows, of_level)]
            for name, of_level in zip(inner, inner_codes)
        ]
        labels = [[[str(code) for code in found] for found in of_level] for of_level in inner_codes]
        components = VCSpec(inner, labels, matrices)
    ones = np.ones((len(values), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `converged` says it, and the edge is looked at
        try:
            fit = MixedLM(values, ones, groups=groups, exog_re=ones, exog_vc=components).fit(reml=True)
        except np.linalg.LinAlgError:  # no spread within the groups
            return _Fit(float(values.mean()), 0.0, dict.fromkeys((*codes, residual), 0.0), -np.inf, False)
        variances = {outermost: float(np.asarray(fit.cov_re)[0, 0]), **dict(zip(inner, map(float, fit.vcomp)))}
        error, scale = float(np.asarray(fit.bse_fe)[0]), float(fit.scale)
    is_usable = bool(fit.converged) and np.isfinite(error) and scale > 0
    return _with_facts(codes, values, {**variances, residual: scale}, error, is_usable)


def _with_facts(
    codes: Mapping[str, np.ndarray],
    values: np.ndarray,
    variances: Mapping[str, float],
    error: float,
    converged: bool = True,
) -> _Fit:
    """Generalized least squares mean, and the restricted log likelihood of the variances."""
    runs = len(values)
    covariance = [*variances.values()][-1] * np.eye(runs)  # the residual
    for name, code in codes.items():
        covariance = covariance + variances[name] * (code[:, None] == code[None, :])
    sign, log_determinant = np.linalg.slogdet(covariance)
    if sign <= 0 or not np.isfinite(log_determinant):
        return _Fit(float(values.mean()), error, variances, -np.inf, False)
    precision = np.linalg.inv(covariance)
    weight = float(precision.sum())
    mean = float(precision.sum(axis=0) @ values) / weight
    squares = float((values - mean) @ precision @ (values - mean))
    log_likelihood = -0.5 * (log_determinant + np.log(weight) + squares)
    return _Fit(mean, error, variances, float(log_likelihood), converged)
