"""The prediction experiment on Mini: its sets, and its analysis on a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from experiments.prediction.analysis import Base
from experiments.prediction.mini import MINI, PREDICTORS, SET_SIZE, SETS, draw_sets, is_imperative
from experiments.prediction.mini_analysis import (
    all_correlations,
    correlation,
    jsr_correlation,
    permutation_p,
    primary_p_values,
    regret_share,
    seed_agreement,
)
from undersong.corpora.registry import open_corpus


def test_sets_are_disjoint_and_go_from_questions_to_imperatives() -> None:
    pool = list(open_corpus("mini:pool").samples)
    sets = draw_sets(pool)
    assert sets == draw_sets(pool)
    ids = [key for chosen in sets for key in chosen]
    assert [len(chosen) for chosen in sets] == [SET_SIZE] * SETS
    assert len(set(ids)) == SETS * SET_SIZE
    imperative = {sample.id: is_imperative(sample) for sample in pool}
    assert [sum(imperative[key] for key in chosen) for chosen in sets] == [
        round(SET_SIZE * number / (SETS - 1)) for number in range(SETS)
    ]


def simulated(weights: dict[str, float]) -> Base:
    """One base whose damage is normal, and predictors that hold `weight` of it."""
    rng = np.random.default_rng(0)
    damage = rng.normal(size=SETS)
    predictors = {name: weights.get(name, 0.0) * damage + rng.normal(size=SETS) for name in PREDICTORS}
    losses = {seed: damage + 0.2 * rng.normal(size=SETS) for seed in MINI.seeds}
    return Base("mini", predictors, losses, {seed: loss / 10 for seed, loss in losses.items()})


def test_the_analysis_finds_a_good_predictor_and_no_other() -> None:
    base = simulated({"rehearsal": 5.0})
    p_values = primary_p_values(base)
    assert p_values["rehearsal"] < 0.01
    assert min(p_values["influence"], p_values["screening_score"]) > 0.05
    found = all_correlations(base)
    assert found["rehearsal"].low > 0.5
    assert regret_share(base, "rehearsal") < 0.3
    assert seed_agreement(base) > 0.7
    assert jsr_correlation(base).value == pytest.approx(1.0)


def test_the_permutation_test_agrees_with_the_exact_one_and_holds_its_level() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=7), rng.normal(size=7)
    exact = stats.permutation_test(
        (x,), lambda row: stats.spearmanr(row, y).statistic, permutation_type="pairings", n_resamples=np.inf
    )
    assert permutation_p(y, x) == pytest.approx(exact.pvalue, abs=1e-9)
    assert permutation_p(np.ones(7), x) == 1.0


def test_the_interval_covers_the_true_correlation() -> None:
    rng = np.random.default_rng(2)
    pearson = 2 * np.sin(np.pi * 0.7 / 6)  # of normal numbers whose rank correlation is 0.7
    pairs = rng.multivariate_normal([0, 0], [[1, pearson], [pearson, 1]], size=(400, SETS))
    intervals = [correlation(rows[:, 0], rows[:, 1]) for rows in pairs]
    coverage = np.mean([found.low <= 0.7 <= found.high for found in intervals])
    assert 0.92 <= coverage <= 0.99
