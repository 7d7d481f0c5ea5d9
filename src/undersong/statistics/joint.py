"""Which of several predictors goes along with an outcome: one by one, all together, and how sure the largest is.

Points come in replicates (runs of one selection); a bootstrap draws points and then their replicates, so that both the
choice of points and run noise are in every interval.  Knows arrays; does not know axes or damage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undersong.statistics.bootstrap import Interval, interval
from undersong.types import UndersongError

SPARE = 3  # points beyond the predictors that a joint fit needs at least
NOTE_FEW = "{points} selections are too few for a joint fit of {axes} axes; it takes {needed}."
NOTE_FLAT = "The outcome, or a predictor, does not vary over the selections, so nothing can be said."
NOTE_ALIKE = "Some axes rank these selections alike (variance inflation {worst:.0f}): their joint slopes mean little."
ALIKE = 10.0  # variance inflation beyond which a joint slope means little (O'Brien 2007 on the rule of thumb)


@dataclass(frozen=True, slots=True)
class Predictor:
    """`rank`: Spearman's correlation.  `slope`: change of the outcome per standard deviation of the predictor, alone;
    `joint`: the same with all predictors in the fit.  `inflation`: of the joint slope's variance by the others (VIF).
    `dominant`: share of bootstrap draws in which its joint slope is the largest of all (in size); of the marginal one
    where there is no joint fit."""

    name: str
    rank: Interval
    slope: Interval
    joint: Interval | None
    inflation: float | None
    dominant: float | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Over `points` points with `replicates` replicates in all; `note` says what could not be told (else empty)."""

    points: int
    replicates: int
    predictors: tuple[Predictor, ...]
    note: str = ""


def predict(
    names: Sequence[str], predictors: np.ndarray, outcomes: Sequence[Sequence[float]], draws: int = 1000, seed: int = 0
) -> Prediction:
    """`predictors` (points, axes) of `names`; `outcomes`: one list of replicates a point.

    Least squares on the points' means, predictors scaled to unit variance.  Raises UndersongError where lengths differ
    or a number is not finite.
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
    if points < 3 or np.ptp(means) == 0 or (np.ptp(x, axis=0) == 0).any():
        return Prediction(points, replicates, (), NOTE_FLAT)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    together = points >= axes + SPARE
    whole = _fit(scaled, means, together)
    drawn = np.array([_fit(*_redrawn(scaled, groups, rng), together) for rng in _streams(draws, seed)])
    inflation = _inflation(scaled) if together else None
    largest = np.abs(drawn[:, 2 if together else 1])
    known = np.isfinite(largest).all(axis=1)
    first = largest[known].argmax(axis=1)
    made = tuple(
        Predictor(
            name,
            interval(float(whole[0, i]), drawn[:, 0, i], points),
            interval(float(whole[1, i]), drawn[:, 1, i], points),
            interval(float(whole[2, i]), drawn[:, 2, i], points) if together else None,
            None if inflation is None else float(inflation[i]),
            float((first == i).mean()) if axes > 1 and known.any() else None,
        )
        for i, name in enumerate(names)
    )
    return Prediction(points, replicates, made, _note(points, axes, inflation))


def _note(points: int, axes: int, inflation: np.ndarray | None) -> str:
    if inflation is None:
        return NOTE_FEW.format(points=points, axes=axes, needed=axes + SPARE)
    worst = float(inflation.max())
    return NOTE_ALIKE.format(worst=min(worst, 1e6)) if worst > ALIKE else ""


def _streams(draws: int, seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(draws)]


def _redrawn(x: np.ndarray, groups: Sequence[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points with replacement, and within each its replicates with replacement."""
    rows = rng.integers(0, len(groups), len(groups))
    means = [rng.choice(groups[row], len(groups[row])).mean() for row in rows]
    return x[rows], np.array(means)


def _fit(x: np.ndarray, y: np.ndarray, together: bool) -> np.ndarray:
    """(3, axes): rank correlations, marginal slopes, joint slopes (NaN where they cannot be had)."""
    out = np.full((3, x.shape[1]), np.nan)
    varies = (np.ptp(x, axis=0) > 0) & (np.ptp(y) > 0)
    moved = y - y.mean()
    for i in np.flatnonzero(varies):
        column = x[:, i] - x[:, i].mean()
        out[0, i] = _rank_correlation(x[:, i], y)
        out[1, i] = column @ moved / (column @ column)
    if together and varies.all():
        design = np.column_stack([np.ones(len(x)), x])
        if np.linalg.matrix_rank(design) == design.shape[1]:
            out[2] = np.linalg.lstsq(design, y, rcond=None)[0][1:]
    return out


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _inflation(x: np.ndarray) -> np.ndarray:
    """Variance inflation factors: the diagonal of the inverse correlation matrix; very large where it has none."""
    if x.shape[1] == 1:
        return np.ones(1)
    return np.diag(np.linalg.pinv(np.corrcoef(x.T), hermitian=True)) if _regular(x) else np.full(x.shape[1], 1e6)


def _regular(x: np.ndarray) -> bool:
    return bool(np.linalg.matrix_rank(x) == x.shape[1])
