"""The prediction experiment: its sets, its analysis on a known truth, and a page that its results give again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from experiments.prediction import page
from experiments.prediction.analysis import (
    Base,
    calibration,
    ceilings,
    combination_correlations,
    correlations,
    differences_from_baseline,
    endpoint_agreement,
    primary_comparisons,
    regret,
)
from experiments.prediction.design import KINDS, PREDICTORS, PRIMARY, SET_SIZE, SETS, draw_sets, kind_of
from undersong.corpora.registry import open_corpus
from undersong.statistics.multiple_testing import holm


def test_sets_are_distinct_mixtures_that_every_call_draws_again() -> None:
    pool = list(open_corpus("organism:pool").samples)
    sets = draw_sets(pool)
    assert sets == draw_sets(pool)
    assert len({tuple(ids) for ids in sets}) == SETS
    assert all(len(set(ids)) == SET_SIZE for ids in sets)
    kinds = {sample.id: kind_of(sample) for sample in pool}
    shares = np.array([[np.mean([kinds[key] == kind for key in ids]) for kind in KINDS] for ids in sets])
    assert (np.ptp(shares, axis=0) > 0.6).all()  # the mixtures differ in every kind


def simulated_bases(weights: dict[str, float], count: int = 8) -> list[Base]:
    """Bases whose damage is normal, and predictors that hold `weight` of it."""
    rng = np.random.default_rng(0)
    bases = []
    for number in range(count):
        damage = rng.normal(size=SETS)
        predictors = {name: weights.get(name, 0.0) * damage + rng.normal(size=SETS) for name in PREDICTORS}
        losses = {seed: damage + rng.normal(size=SETS) * 0.3 for seed in (0, 1)}
        bases.append(Base(str(number), predictors, losses, {seed: -loss for seed, loss in losses.items()}))
    return bases


def test_the_analysis_finds_what_is_there_and_nothing_else() -> None:
    bases = simulated_bases({"rehearsal": 2.0})
    found = correlations(bases)
    assert found["rehearsal"].mean > 0.8
    assert all(abs(found[name].mean) < 0.2 for name in PREDICTORS if name != "rehearsal")
    differences = differences_from_baseline(found)
    primary = primary_comparisons(differences)
    assert primary["rehearsal"][1] < 0.001
    assert [adjusted for _, adjusted in primary.values()] == holm([differences[name].p for name in PRIMARY])
    assert regret(bases, "rehearsal")[1].mean < 0.3 < regret(bases, "tfidf")[1].mean
    assert combination_correlations(bases, ("rehearsal", "tfidf")).mean > 0.7
    assert ceilings(bases)["seed 0 with seed 1"].mean > 0.8


def test_a_base_is_never_predicted_from_itself() -> None:
    bases = simulated_bases({"rehearsal": 2.0}, 3)
    upside_down = replace(bases[0], losses={seed: -loss for seed, loss in bases[0].losses.items()})
    (_, predicted, damage), *_ = calibration([upside_down, *bases[1:]])
    assert np.corrcoef(predicted, damage)[0, 1] < 0
    assert combination_correlations([upside_down, *bases[1:]], ("rehearsal",)).by_base[0] < 0


def test_a_predictor_that_ranks_nothing_has_no_correlation() -> None:
    bases = [replace(base, predictors=dict(base.predictors) | {"tfidf": np.ones(SETS)}) for base in simulated_bases({})]
    assert correlations(bases)["tfidf"].by_base == (0.0,) * len(bases)


@pytest.mark.skipif(not page.RESULTS.is_file(), reason="the experiment was not run yet")
def test_the_page_is_what_its_results_give() -> None:
    import json

    bases = [Base.from_record(record) for record in json.loads(page.RESULTS.read_text())["bases"]]
    assert page.PAGE.read_text() == "\n".join(page.page_lines(bases, correlations(bases))) + "\n"


def test_endpoints_are_compared() -> None:
    agreement = endpoint_agreement(simulated_bases({}))  # where the JSR is minus the loss of margin
    assert agreement["loss of margin with JSR, over sets"].mean == pytest.approx(-1)
    assert agreement["JSR, seed 0 with seed 1"].mean == agreement["loss of margin, seed 0 with seed 1"].mean
