"""The registered analysis of the experiment on Mini: rank correlations over its twelve sets, and permutation tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from experiments.prediction.analysis import Base, rank_correlation
from experiments.prediction.mini import PREDICTORS, PRIMARY
from undersong.statistics.multiple_testing import holm

SAFEST = 3  # sets that a predictor calls safest
RESAMPLES, SEED = 99_999, 0


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over sets, with its 95 % interval."""

    value: float
    low: float
    high: float


def correlation(predictor: np.ndarray, damage: np.ndarray) -> Correlation:
    """Rank correlation with an interval by Fisher's transformation, variance of Bonett and Wright (2000)."""
    value = rank_correlation(predictor, damage)
    z = np.arctanh(np.clip(value, -0.9999, 0.9999))
    half = stats.norm.ppf(0.975) * np.sqrt((1 + value**2 / 2) / (len(damage) - 3))
    return Correlation(value, float(np.tanh(z - half)), float(np.tanh(z + half)))


def permutation_p(predictor: np.ndarray, damage: np.ndarray) -> float:
    """Two-sided p value of a rank correlation of 0, by permuting the sets; 1 for a predictor that ranks nothing."""
    if np.ptp(predictor) == 0:
        return 1.0
    ranks = stats.rankdata(predictor)
    test = stats.permutation_test(
        (stats.rankdata(damage),),
        lambda permuted, axis: _row_correlations(permuted, ranks),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(SEED),
    )
    return float(test.pvalue)


def _row_correlations(rows: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    centered = rows - rows.mean(-1, keepdims=True)
    own = ranks - ranks.mean()
    products: np.ndarray = (centered @ own) / np.sqrt((centered**2).sum(-1) * (own**2).sum())
    return products


def primary_p_values(base: Base) -> dict[str, float]:
    """P values of the registered tests, adjusted by Holm's method."""
    adjusted = holm([permutation_p(base.predictors[name], base.damage) for name in PRIMARY])
    return {name: float(1.0 if p is None else p) for name, p in zip(PRIMARY, adjusted)}


def all_correlations(base: Base) -> Mapping[str, Correlation]:
    """Rank correlation of each predictor with the damage."""
    return {name: correlation(base.predictors[name], base.damage) for name in PREDICTORS}


def regret_share(base: Base, name: str) -> float:
    """Regret of the sets that a predictor calls safest, as a share of what choosing at random costs."""
    chosen = np.argsort(base.predictors[name], kind="stable")[:SAFEST]
    best = np.sort(base.damage)[:SAFEST].mean()
    return float((base.damage[chosen].mean() - best) / (base.damage.mean() - best))


def seed_agreement(base: Base) -> float:
    """Mean rank correlation of the damage between two seeds."""
    return float(np.mean([rank_correlation(one, other) for one, other in combinations(base.losses.values(), 2)]))


def jsr_correlation(base: Base) -> Correlation:
    """Rank correlation of the damage with the share of requests that are not refused."""
    return correlation(np.mean(list(base.jsr.values()), axis=0), base.damage)
