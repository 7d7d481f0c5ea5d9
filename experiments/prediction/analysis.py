"""The registered analysis: rank correlations within bases, paired comparisons over bases, regret and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from experiments.prediction.design import BASELINE, DISTANCES, FORWARD, GRADIENTS, METADATA, PREDICTORS, PRIMARY, SEEDS
from undersong.statistics.multiple_testing import holm

SAFEST = 9  # sets that a predictor calls safest
COMBINATIONS = {
    "metadata": METADATA,
    "without a model": (*METADATA, *DISTANCES[:4], "screening_score"),
    "forward passes": (*METADATA, *DISTANCES, *FORWARD),
    "all before training": (*METADATA, *DISTANCES, *FORWARD, *GRADIENTS),
    "all with the rehearsal": PREDICTORS,
}
RIDGE = 36.0  # penalty on standardized ranks: it weighs as much as the sets of one base


@dataclass(frozen=True)
class Base:
    """One measured base: predictors by name (sets,), and by seed the loss of margin in nats and the JSR (sets,)."""

    name: str
    predictors: Mapping[str, np.ndarray]
    losses: Mapping[int, np.ndarray]
    jsr: Mapping[int, np.ndarray]

    @property
    def damage(self) -> np.ndarray:
        """Mean loss of margin over the seeds (sets,)."""
        return np.mean(list(self.losses.values()), axis=0)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], seeds: Sequence[int] = SEEDS) -> Base:
        """Parse the file of one base, whose sets were trained on with these seeds."""
        names = record["predictors"][0].keys()
        count = len(record["predictors"])
        after = {(entry["set"], entry["seed"]): entry for entry in record["after"]}
        losses = {
            seed: np.array([record["before"]["margin"] - after[i, seed]["margin"] for i in range(count)])
            for seed in seeds
        }
        return cls(
            record["base"],
            {name: np.array([row[name] for row in record["predictors"]]) for name in names},
            losses,
            {seed: np.array([after[i, seed]["jsr"] for i in range(count)]) for seed in seeds},
        )


@dataclass(frozen=True)
class Estimate:
    """A mean over bases with its 95 % t interval, the values by base, and the p value that the mean is 0."""

    mean: float
    low: float
    high: float
    p: float
    by_base: tuple[float, ...]

    @classmethod
    def over_bases(cls, values: Sequence[float]) -> Estimate:
        """Estimate from one value per base."""
        numbers = np.asarray(values, dtype=float)
        test = stats.ttest_1samp(numbers, 0.0)
        interval = test.confidence_interval(0.95)
        return cls(float(numbers.mean()), float(interval.low), float(interval.high), float(test.pvalue), tuple(numbers))


def rank_correlation(predictor: np.ndarray, damage: np.ndarray) -> float:
    """Spearman's correlation; 0 for a predictor that is the same for all sets, which ranks nothing."""
    return 0.0 if np.ptp(predictor) == 0 else float(stats.spearmanr(predictor, damage).statistic)


def correlations(bases: Sequence[Base]) -> dict[str, Estimate]:
    """Rank correlation of each predictor with the damage, over bases."""
    return {
        name: Estimate.over_bases([rank_correlation(base.predictors[name], base.damage) for base in bases])
        for name in PREDICTORS
    }


def differences_from_baseline(found: Mapping[str, Estimate], baseline: str = BASELINE) -> dict[str, Estimate]:
    """Paired difference of each predictor's correlation from the baseline's."""
    reference = np.array(found[baseline].by_base)
    return {
        name: Estimate.over_bases((np.array(estimate.by_base) - reference).tolist())
        for name, estimate in found.items()
        if name != baseline
    }


def primary_comparisons(differences: Mapping[str, Estimate]) -> dict[str, tuple[Estimate, float]]:
    """The registered comparisons, each with its p value adjusted by Holm's method."""
    adjusted = holm([differences[name].p for name in PRIMARY])
    return {name: (differences[name], float(p or 0.0)) for name, p in zip(PRIMARY, adjusted)}


def combination_correlations(bases: Sequence[Base], names: Sequence[str]) -> Estimate:
    """Rank correlation of a ridge combination of predictors' ranks, fitted on all other bases."""

    def ranks(base: Base) -> np.ndarray:
        columns = np.stack([stats.rankdata(base.predictors[name]) for name in names], axis=1)
        return _standardize(columns)

    values = []
    for held_out in bases:
        others = [base for base in bases if base is not held_out]
        x = np.concatenate([ranks(base) for base in others])
        y = np.concatenate([_standardize(stats.rankdata(base.damage)[:, None])[:, 0] for base in others])
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)
        values.append(rank_correlation(ranks(held_out) @ weights, held_out.damage))
    return Estimate.over_bases(values)


def _standardize(columns: np.ndarray) -> np.ndarray:
    spread = columns.std(axis=0)
    standardized: np.ndarray = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return standardized


def regret(bases: Sequence[Base], name: str) -> tuple[Estimate, Estimate]:
    """Damage of the sets that a predictor calls safest beyond that of the safest ones: in nats, and as a share.

    The share is of the regret of choosing at random: 0 is the best choice, 1 is chance.
    """
    nats, shares = [], []
    for base in bases:
        chosen = np.argsort(base.predictors[name], kind="stable")[:SAFEST]
        best = np.sort(base.damage)[:SAFEST].mean()
        nats.append(float(base.damage[chosen].mean() - best))
        shares.append(nats[-1] / float(base.damage.mean() - best))
    return Estimate.over_bases(nats), Estimate.over_bases(shares)


def calibration(bases: Sequence[Base], name: str = "rehearsal") -> list[tuple[str, np.ndarray, np.ndarray]]:
    """For each base: its name, the damage predicted by a line fitted on all other bases, and the damage."""
    rows = []
    for held_out in bases:
        others = [base for base in bases if base is not held_out]
        x, y = (
            np.concatenate(parts)
            for parts in ([base.predictors[name] for base in others], [base.damage for base in others])
        )
        slope, intercept = np.polyfit(x, y, 1)
        rows.append((held_out.name, intercept + slope * held_out.predictors[name], held_out.damage))
    return rows


def ceilings(bases: Sequence[Base]) -> dict[str, Estimate]:
    """Rank correlations that no predictor can be expected to exceed: of the two seeds, and of a base with the others."""
    across = [
        rank_correlation(
            np.mean([stats.rankdata(other.damage) for other in bases if other is not base], axis=0), base.damage
        )
        for base in bases
    ]
    return {
        "seed 0 with seed 1": Estimate.over_bases(
            [rank_correlation(*(base.losses[seed] for seed in SEEDS)) for base in bases]
        ),
        "one base with the mean of the others": Estimate.over_bases(across),
    }


def mean_ceiling(agreement: float, seeds: int) -> float:
    """Correlation of a perfect predictor with the mean of several trainings, from the correlation of two (Spearman-Brown)."""
    return float(np.sqrt(seeds * agreement / (1 + (seeds - 1) * agreement)))


def endpoint_agreement(bases: Sequence[Base]) -> dict[str, Estimate]:
    """Rank correlations that compare the two endpoints; added after the registration."""
    return {
        "loss of margin with JSR, over sets": Estimate.over_bases(
            [rank_correlation(np.mean(list(base.jsr.values()), axis=0), base.damage) for base in bases]
        ),
        "loss of margin, seed 0 with seed 1": ceilings(bases)["seed 0 with seed 1"],
        "JSR, seed 0 with seed 1": Estimate.over_bases(
            [rank_correlation(*(base.jsr[seed] for seed in SEEDS)) for base in bases]
        ),
    }


def tied_share(bases: Sequence[Base]) -> float:
    """Share of trainings whose JSR is at most 2 % or at least 98 %, where it can hardly rank."""
    values = np.concatenate([values for base in bases for values in base.jsr.values()])
    return float(np.mean((values <= 0.02) | (values >= 0.98)))
