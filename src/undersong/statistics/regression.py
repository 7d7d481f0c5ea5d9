"""Association of predictors with an outcome: rank correlations, marginal and joint slopes, variance inflation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undersong.statistics.bootstrap import Interval, percentile_interval
from undersong.types import UndersongError

# Of fewer points there is no rank correlation: under the null, bootstrap intervals of 4 or 5 points leave 0 out in up
# to 14 % of cases instead of 5 %.
MIN_RANK_POINTS = 8
MIN_RESIDUAL_POINTS = 3  # a joint fit needs at least this many points more than predictors
NOTE_FEW = "{points} selections are too few for a joint fit of {axes} axes; it takes {needed}."
NOTE_TOO_FEW_POINTS = "{points} arms are too few for a rank correlation ({needed} are needed)."
NOTE_CONSTANT = "The outcome, or a predictor, does not vary over the selections, so nothing can be said."
NOTE_COLLINEAR = (
    "Some axes rank these selections alike (variance inflation {worst:.0f}): their joint slopes mean little."
)
MAX_INFLATION = 10.0  # variance inflation beyond which a joint slope means little (O'Brien 2007 on the rule of thumb)


@dataclass(frozen=True, slots=True)
class PredictorFit:
    """Association of one predictor with the outcome.

    Attributes:
        name: Name of the predictor.
        rank: Spearman's correlation.
        slope: Change of the outcome per standard deviation of the predictor, fitted alone.
        joint: The same with all predictors in the fit; None without a joint fit.
        inflation: Variance inflation factor (VIF) of the joint slope.
        dominant: Share of bootstrap draws in which this predictor has the largest joint slope in absolute value, or the
            largest marginal slope if there is no joint fit.
    """

    name: str
    rank: Interval
    slope: Interval
    joint: Interval | None
    inflation: float | None
    dominant: float | None


@dataclass(frozen=True, slots=True)
class RegressionResult:
    """Fits over `points` points with `replicates` replicates in all; `note` says what could not be estimated, else
    empty."""

    points: int
    replicates: int
    predictors: tuple[PredictorFit, ...]
    note: str = ""


def correlate_with_outcome(
    names: Sequence[str], predictors: np.ndarray, outcomes: Sequence[Sequence[float]], draws: int = 1000, seed: int = 0
) -> RegressionResult:
    """Rank correlations and slopes of several predictors with an outcome, with bootstrap intervals.

    Of fewer than `MIN_RANK_POINTS` points there are none, and the note says so. Slopes are least squares on the mean
    outcome of each point; predictors are scaled to unit variance.

    Args:
        names: Name of each predictor, (axes,).
        predictors: Value of each predictor at each point, (points, axes).
        outcomes: Replicated outcomes of each point.
        draws: Number of bootstrap draws, over points and over replicates within a point.
        seed: Seed of the bootstrap.

    Raises:
        UndersongError: Lengths differ, or a number is not finite.
    """
    x = np.asarray(predictors, dtype=np.float64)
    points, axes = x.shape
    groups = [np.asarray(values, dtype=np.float64) for values in outcomes]
    if axes != len(names) or points != len(groups) or not all(len(values) for values in groups):
        raise UndersongError(f"{len(names)} names and {len(groups)} outcomes do not fit predictors of shape {x.shape}.")
    if not (np.isfinite(x).all() and all(np.isfinite(values).all() for values in groups)):
        raise UndersongError("A predictor or an outcome is not a finite number; measure it again.")
    replicates = sum(map(len, groups))
    means = np.array([values.mean() for values in groups])
    if points < MIN_RANK_POINTS:
        return RegressionResult(points, replicates, (), too_few_points(points))
    if np.ptp(means) == 0 or (np.ptp(x, axis=0) == 0).any():
        return RegressionResult(points, replicates, (), NOTE_CONSTANT)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    joint_fit = points >= axes + MIN_RESIDUAL_POINTS
    estimates = _fit_all(scaled[None], means[None], joint_fit)[0]
    bootstrap_samples = [_bootstrap_sample(scaled, groups, rng) for rng in _generators(draws, seed)]
    bootstrap_estimates = _fit_all(
        np.stack([rows for rows, _ in bootstrap_samples]),
        np.stack([outcome_means for _, outcome_means in bootstrap_samples]),
        joint_fit,
    )
    inflation = _inflation(scaled) if joint_fit else None
    largest = np.abs(bootstrap_estimates[:, 2 if joint_fit else 1])
    valid = np.isfinite(largest).all(axis=1)
    largest_index = largest[valid].argmax(axis=1)
    fits = tuple(
        PredictorFit(
            name,
            percentile_interval(float(estimates[0, i]), bootstrap_estimates[:, 0, i], points),
            percentile_interval(float(estimates[1, i]), bootstrap_estimates[:, 1, i], points),
            percentile_interval(float(estimates[2, i]), bootstrap_estimates[:, 2, i], points) if joint_fit else None,
            None if inflation is None else float(inflation[i]),
            float((largest_index == i).mean()) if axes > 1 and valid.any() else None,
        )
        for i, name in enumerate(names)
    )
    return RegressionResult(points, replicates, fits, _note(points, axes, inflation))


def too_few_points(points: int) -> str:
    """The note on arms that are too few for a rank correlation."""
    return NOTE_TOO_FEW_POINTS.format(points=points, needed=MIN_RANK_POINTS)


def _note(points: int, axes: int, inflation: np.ndarray | None) -> str:
    if inflation is None:
        return NOTE_FEW.format(points=points, axes=axes, needed=axes + MIN_RESIDUAL_POINTS)
    worst = float(inflation.max())
    return NOTE_COLLINEAR.format(worst=min(worst, 1e6)) if worst > MAX_INFLATION else ""


def _generators(draws: int, seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(draws)]


def _bootstrap_sample(
    x: np.ndarray, groups: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw points with replacement, and replicates with replacement within each point."""
    rows = rng.integers(0, len(groups), len(groups))
    means = [rng.choice(groups[row], len(groups[row])).mean() for row in rows]
    return x[rows], np.array(means)


def _fit_all(x: np.ndarray, y: np.ndarray, joint_fit: bool) -> np.ndarray:
    """Rank correlations, marginal slopes and joint slopes, (draws, 3, axes); NaN if undefined.

    `x` is (draws, points, axes) and `y` is (draws, points).
    """
    from scipy.stats import rankdata

    out = np.full((len(x), 3, x.shape[2]), np.nan)
    varies = (np.ptp(x, axis=1) > 0) & (np.ptp(y, axis=1) > 0)[:, None]
    centered_x, centered_y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    ranks = rankdata(np.concatenate([x, y[:, :, None]], axis=2), axis=1) - (x.shape[1] + 1) / 2
    a, b = ranks[:, :, :-1], ranks[:, :, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        rank_correlations = np.einsum("dpa,dp->da", a, b) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)[:, None])
        slopes = np.einsum("dpa,dp->da", centered_x, centered_y) / (centered_x**2).sum(axis=1)
    out[:, 0], out[:, 1] = np.where(varies, rank_correlations, np.nan), np.where(varies, slopes, np.nan)
    for draw in np.flatnonzero(varies.all(axis=1)) if joint_fit else ():
        design = np.column_stack([np.ones(x.shape[1]), x[draw]])
        if np.linalg.matrix_rank(design) == design.shape[1]:
            out[draw, 2] = np.linalg.lstsq(design, y[draw], rcond=None)[0][1:]
    return out


def _inflation(x: np.ndarray) -> np.ndarray:
    """Variance inflation factors: the diagonal of the inverse correlation matrix, or 1e6 if it is singular."""
    if x.shape[1] == 1:
        return np.ones(1)
    return np.diag(np.linalg.pinv(np.corrcoef(x.T), hermitian=True)) if _has_full_rank(x) else np.full(x.shape[1], 1e6)


def _has_full_rank(x: np.ndarray) -> bool:
    return bool(np.linalg.matrix_rank(x) == x.shape[1])
