"""Comparisons of the refusal margin: paired over runs, each with its own base, and clustered over prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from results_factory import make_rate, run_result
from scipy import stats

from undersong.results.schema import RunResult
from undersong.statistics.multiple_testing import holm
from undersong.statistics.rates import clustered_mean, clustered_mean_p
from undersong.study.results.contrasts import PrimaryPlan
from undersong.study.results.margin_comparisons import model_margin_comparison, recipe_margin_comparisons
from undersong.study.results.model_comparisons import model_comparison
from undersong.study.results.notes import margin_notes
from undersong.types import Verdict

KINDS = {"closest": 1.0, "random": 3.0, "distant": 6.0}
BASES = (7.0, 9.0, 6.5)


def rated(margin: float | None) -> list[dict[str, Any]]:
    return [make_rate(0.0, refusal_margin=margin)]  # a floor of the JSR, where the margin still ranks


def margin(kind: str, base: int, seed: int) -> float:
    return KINDS[kind] + 0.3 * base + float(np.random.default_rng([base, seed, list(KINDS).index(kind)]).normal(0, 0.4))


def study() -> list[RunResult]:
    runs = [run_result("base", rated(value), base_seed=base) for base, value in enumerate(BASES)]
    for kind in KINDS:
        for base in range(len(BASES)):
            for seed in range(2):
                arm = f"semantic/{kind}/0.25/audio"
                runs.append(run_result(arm, rated(margin(kind, base, seed)), base_seed=base, seed=seed))
    return runs


def test_arms_are_compared_over_bases_and_corrected_in_a_family_of_their_own() -> None:
    rows = recipe_margin_comparisons(study(), "plain", None, 40, PrimaryPlan(questions=("closest-base",)))
    kinds = {(row.b.arm.split("/")[1], row.a.arm.split("/")[1] if "/" in row.a.arm else "base"): row for row in rows}
    pair = kinds["closest", "distant"]
    changes = [np.mean([margin("closest", b, s) - margin("distant", b, s) for s in range(2)]) for b in range(3)]
    assert pair.difference == pytest.approx(np.mean(changes))
    assert pair.p == pytest.approx(stats.ttest_1samp(changes, 0.0).pvalue)
    assert pair.n == 6
    assert pair.metric == "refusal_margin"
    primary = [row for row in rows if row.family == "primary"]
    assert [row.b.arm for row in primary] == ["semantic/closest/0.25/audio"]
    assert primary[0].p_adjusted == primary[0].p
    others = [row for row in rows if row.family == "exploratory"]
    assert [row.p_adjusted for row in others] == holm([row.p for row in others])


def test_every_run_is_compared_with_its_own_base() -> None:
    rows = recipe_margin_comparisons(study(), "plain", None, 40)
    row = next(row for row in rows if row.a.arm == "base" and "closest" in row.b.arm)
    assert {(pair.base_seed, pair.a) for pair in row.estimates} == set(enumerate(BASES))


def test_runs_without_a_margin_are_left_out_with_a_note() -> None:
    runs = [
        run.model_copy(update={"rates": run_result(run.arm, rated(None)).rates})
        if (run.kind, run.base_seed, run.seed) == ("closest", 0, 0) else run for run in study()
    ]  # fmt: skip
    row = next(row for row in recipe_margin_comparisons(runs, "plain", None, 40) if "closest" in row.b.arm)
    assert row.n == 5
    assert row.note is not None
    assert row.note.startswith("1 of 6 runs are left out")
    assert "1 of 21 rates" in margin_notes(runs)[0]


def test_a_study_without_margins_has_no_such_comparison() -> None:
    runs = [run.model_copy(update={"rates": run_result(run.arm, rated(None)).rates}) for run in study()]
    assert recipe_margin_comparisons(runs, "plain", None, 40) == []
    assert margin_notes(study()) == []


def verdicts(shift: float) -> list[Verdict]:
    noise = np.random.default_rng(1).normal(0, 1, 12)
    return [
        Verdict(
            f"p{i}", "harm", True, f"c{i // 3}", "audio", "plain", "exact", "refusal",
            refusal_margin=5.0 - shift * (1 + noise[i]),
        )
        for i in range(12)
    ]  # fmt: skip


def test_one_model_is_compared_over_clusters_of_prompts() -> None:
    before, after = verdicts(0.0), verdicts(2.0)
    run = run_result("semantic/closest/0.25/audio", [], seed=0)
    jsr = model_comparison(run, before, after, "harm", "audio", "plain")
    assert jsr.difference == 0  # the JSR shows nothing
    row = model_margin_comparison(jsr, before, after)
    assert row is not None
    changes = [b.refusal_margin - a.refusal_margin for a, b in zip(before, after)]  # type: ignore[operator]
    clusters = [verdict.cluster for verdict in before]
    interval = clustered_mean(changes, clusters)
    assert (row.difference, row.low, row.high) == (interval.value, interval.low, interval.high)
    assert row.id != jsr.id
    assert row.scope == "model"
    assert row.n == 12
    missing = [replace(after[0], refusal_margin=None), *after[1:]]
    assert model_margin_comparison(jsr, before, missing) is None


def test_the_p_value_belongs_to_the_clustered_interval() -> None:
    values, clusters = np.random.default_rng(0).normal(0.4, 1, 30), [f"c{i // 3}" for i in range(30)]
    p = clustered_mean_p(values, clusters)
    assert p is not None
    assert clustered_mean(values, clusters, 1 - p).low == pytest.approx(0.0, abs=1e-9)
    assert clustered_mean_p([1.0, 2.0], ["a", "a"]) is None  # a single cluster
