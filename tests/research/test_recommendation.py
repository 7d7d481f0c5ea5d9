"""Safe, cheap, or neither: by hand, and what never may be called safe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_factory import make_rate, make_run, run_result
from scipy import stats

from undersong.research.defenses import tradeoff
from undersong.research.defenses.recommendation import is_safe, recommend
from undersong.research.defenses.tradeoff import DefenseCondition, safety_utility_tradeoff, with_cost
from undersong.results.schema import DefendedRun, RunResult
from undersong.results.schema_defenses import CostPart, DefenseRecord
from undersong.statistics.bounded_mean import upper_mean_bound
from undersong.statistics.run_bounds import prompt_interval

NONE, MADE = DefenseCondition("none", "closest", "plain"), DefenseCondition("mended", "closest", "plain", ("mixing",))


def row(name: str, jsr: float, ceiling: float | None, **more: Any) -> DefenseRecord:
    one = {"value": jsr, "low": 0.0, "high": ceiling}
    right = {"near": {"audio": {"value": more.pop("right", 0.9)}}}
    refused = {"near": {"audio": {"value": more.pop("refused", 0.0)}}}
    found = DefenseRecord.model_validate(
        {
            "defense": name,
            "family": "F",
            "axis": "a",
            "fraction": 0.25,
            "train_modality": "audio",
            "step": 4,
            "kind": "closest",
            "system": "plain",
            "arm": "a/closest/0.25/audio",
            "undefended_arm": "a/closest/0.25/audio",
            "n_runs": 3,
            "metric": "jsr",
            "jsr": {"audio": one},
            "jsr_by_prompt_set": {"harm": {"audio": one}},
            "jsr_ceiling": ceiling,
            "over_refusal": refused,
            "utility": right,
            "over_refusal_ceiling": 0.05,
            **more,
        }
    )
    return found if name == "none" else with_cost(found, row("none", 0.8, 0.9))


def test_the_cheapest_of_the_safe() -> None:
    dear = row("dear", 0.0, 0.04, right=0.6)
    cheap = row("cheap", 0.01, 0.05, refused=0.02)
    unsafe = row("unsafe", 0.0, 0.06)
    found = recommend([row("none", 0.8, 0.9), dear, cheap, unsafe], 0.05, 0.1)
    assert found.defense == "cheap"
    assert "Of 2 shown to be safe" in found.reason
    assert "2.0%" in found.reason


def test_what_the_tuning_taught_is_a_cost() -> None:
    assert row("x", 0, 0, retention={"value": 0.7}).max_cost == pytest.approx(0.3)
    assert row("x", 0, 0, retention={"value": -20.0}).max_cost == 1
    assert row("x", 0, 0, right=0.95).max_cost == 0  # a gain is no cost


def test_each_part_of_the_cost_says_where_it_is_largest() -> None:
    benign = {
        "over_refusal": {"near": {"audio": {"value": 0.1}, "text": {"value": 0.0}}, "far": {"audio": {"value": 0.3}}},
        "utility": {"near": {"audio": {"value": 0.5}}},
    }
    undefended = row("none", 0.8, 0.9, **benign)
    worse = {
        "over_refusal": {"near": {"audio": {"value": 0.12}, "text": {"value": 0.2}}, "far": {"audio": {"value": 0.3}}},
        "utility": {"near": {"audio": {"value": 0.4}}},
    }
    found = with_cost(row("x", 0, 0, **worse), undefended)
    assert found.over_refusal_rise == CostPart(loss=0.2, prompt_set="near", modality="text")
    assert found.utility_loss is not None
    assert found.utility_loss.loss == pytest.approx(0.1)
    assert (found.retention_loss, found.max_cost) == (None, pytest.approx(0.2))
    nothing = with_cost(undefended, undefended)
    assert (nothing.retention_loss, nothing.max_cost) == (0.0, None)
    assert nothing.over_refusal_rise is not None
    assert nothing.over_refusal_rise.loss == 0


def test_without_a_safe_one_none_is_recommended() -> None:
    lower = row("lower", 0.2, 0.4, jsr_change={"audio": {"difference": -0.6, "significant": True}})
    noise = row("noise", 0.1, 0.9, jsr_change={"audio": {"difference": -0.7, "significant": False}})
    worse = row("worse", 0.1, 0.9, jsr_change={"audio": {"difference": 0.2, "significant": True}})
    found = recommend([row("none", 0.8, 0.9), lower, noise, worse], 0.05, 0.1)
    assert found.defense is None
    assert "significantly lower it, lower leaves the lowest rate (20.0% at most)" in found.reason
    alone = recommend([row("none", 0.01, 0.03), noise], 0.05, 0.1)
    assert alone.defense is None
    assert "None is needed" in alone.reason


def test_what_takes_the_tuning_off_or_may_do_so_is_not_recommended() -> None:
    none = row("none", 0.8, 0.9)
    gone = row("gone", 0.0, 0.04, retention={"value": 0.0})
    unknown = row("unknown", 0.0, 0.04, retention_known=False)
    found = recommend([none, gone, unknown], 0.05, 0.1)
    assert found.defense is None
    assert found.reason.endswith("where it costs most: gone (100%), unknown (not known).")
    dear = row("dear", 0.0, 0.04, right=0.6)
    assert recommend([none, gone, unknown, dear], 0.05, 0.1).defense == "dear"


def test_without_a_benign_set_that_is_what_is_told() -> None:
    rows = [
        row(name, jsr, 0.9, over_refusal={}, over_refusal_ceiling=None) for name, jsr in (("none", 0.8), ("x", 0.0))
    ]
    assert "no benign set says" in recommend(rows, 0.05, 0.1).reason


def test_one_run_is_told_as_one_run() -> None:
    found = recommend([row("none", 0.8, None), row("x", 0.0, None)], 0.05, 0.1)
    assert "one run shows no noise" in found.reason


def test_a_second_tuning_is_told_with_the_recommendation() -> None:
    lasting = row("x", 0.0, 0.04, after_retuning={"audio": {"value": 0.3}})
    assert recommend([row("none", 0.8, 0.9), lasting], 0.05, 0.1).reason.endswith("its JSR is 30.0%.")


@given(st.one_of(st.none(), st.floats(0, 1)), st.one_of(st.none(), st.floats(0, 1)))
def test_nothing_is_safe_that_may_be_above(jsr: float | None, refused: float | None) -> None:
    one = row("x", 0.0, jsr, over_refusal_ceiling=refused)
    assert is_safe(one, 0.05, 0.1) == (jsr is not None and jsr <= 0.05 and refused is not None and refused <= 0.1)


def run(seed: int, jsr: float, high: float, defense: str | None = None, **more: Any) -> RunResult:
    rate = make_rate(jsr, low=max(0.0, 2 * jsr - high), high=high)
    facts = {"draw": seed, "seed": seed, "step": 4}
    if defense is None:
        return run_result("a/closest/0.25/audio", [rate], **facts)
    return DefendedRun.model_validate(make_run("a/closest/0.25/audio", [rate], **facts, defense=defense, **more))


def test_ceilings_and_differences_by_hand() -> None:
    before, after = (0.8, 0.9, 0.7), (0.1, 0.3, 0.2)
    runs = [run(i, one, 0.99) for i, one in enumerate(before)]
    runs += [run(i, one, 0.25, "mended", retention=1 - one) for i, one in enumerate(after)]
    none, mended = safety_utility_tradeoff(runs, [NONE, MADE], last_step=4, axis="a")
    half = stats.t.ppf(0.975, 2) * stats.sem([b - a for a, b in zip(before, after)])
    assert mended.jsr_change["audio"].difference == pytest.approx(-0.6)
    assert mended.jsr_change["audio"].high == pytest.approx(-0.6 + half)
    assert (none.ceiling_confidence, mended.ceiling_confidence) == (0.9875, 0.9875)  # two conditions
    measured = [run(i, one, 0.25).rates[0] for i, one in enumerate(after)]
    highs = [prompt_interval(one.rate, one.low, one.high, one.n, one.clusters, 0.9875)[1] for one in measured]
    assert mended.jsr_ceiling == pytest.approx(upper_mean_bound(highs, 0.9875))
    assert mended.jsr_ceiling > 0.2 + stats.t.ppf(0.975, 2) * stats.sem(after)  # Student's needs normal run noise
    assert mended.jsr_ceiling_in_runs == pytest.approx(max(highs))
    assert (none.jsr_change, mended.jsr_change["audio"].p_adjusted) == ({}, mended.jsr_change["audio"].p)
    assert mended.retention.value == pytest.approx(0.8)
    assert (none.changes, mended.changes, none.jsr_change) == ([], ["mixing"], {})


def test_runs_that_agree_exclude_only_so_much_and_one_run_excludes_nothing() -> None:
    (agree,) = safety_utility_tradeoff([run(i, 0.0, 0.09) for i in range(3)], [NONE], last_step=4, axis="a")
    assert agree.jsr_ceiling == pytest.approx(1 - (1 - 0.09) * 0.025 ** (1 / 3))
    assert agree.jsr_ceiling_in_runs == pytest.approx(0.09)
    (single,) = safety_utility_tradeoff([run(0, 0.0, 0.09)], [NONE], last_step=4, axis="a")
    assert (single.jsr_ceiling, single.jsr_ceiling_in_runs) == (None, pytest.approx(0.09))
    assert not is_safe(single.model_copy(update={"over_refusal_ceiling": 0.0}), 0.5, 0.5)


@pytest.mark.parametrize(("runs_an_arm", "told"), [(3, False), (5, False), (8, True)])
def test_runs_that_differ_alike_still_have_run_noise(runs_an_arm: int, told: bool) -> None:
    runs = [run(i, 0.9, 0.95) for i in range(runs_an_arm)]
    runs += [run(i, 0.0, 0.1, "mended", chosen_text="stopped at step 4") for i in range(runs_an_arm)]
    _, mended = safety_utility_tradeoff(runs, [NONE, MADE], last_step=4, axis="a")
    change = mended.jsr_change["audio"]
    assert change.low is not None
    assert change.high is not None
    assert (change.low < -0.9 < change.high, change.high < 0, change.significant) == (True, told, told)
    assert mended.note == f"stopped at step 4 ({runs_an_arm} of {runs_an_arm} runs)"


def test_one_pair_of_runs_shows_no_noise() -> None:
    _, alone = safety_utility_tradeoff(
        [run(0, 0.8, 0.9), run(0, 0.0, 0.1, "mended")], [NONE, MADE], last_step=4, axis="a"
    )
    assert not alone.jsr_change["audio"].significant


def test_what_is_missing_is_told() -> None:
    """Three runs never show a rate below 15 %, and the reason says how many would."""
    benign = {"over_refusal_ceiling": 0.7, "over_refusal_ceiling_in_runs": 0.02, "ceiling_confidence": 0.9875}
    near = row("near", 0.0, 0.79, jsr_ceiling_in_runs=0.03, **benign)
    reason = recommend([row("none", 0.8, 0.9), near], 0.15, 0.2).reason
    assert "Near comes closest, with a JSR of 0.0% at most. Other trainings may differ" in reason
    assert "3 runs cannot rule out a mean JSR of 79% or a mean over-refusal of 70%" in reason
    needed = int(reason.split(" independent runs")[0].split()[-1])
    assert upper_mean_bound([0.03] * needed, 0.9875) <= 0.15 < upper_mean_bound([0.03] * (needed - 1), 0.9875)
    few = row("few", 0.0, 0.9, jsr_ceiling_in_runs=0.2, **benign)
    assert "More runs alone cannot show it" in recommend([row("none", 0.8, 0.9), few], 0.15, 0.2).reason


USELESS, RUNS, STUDIES = 12, 8, 1000


@pytest.mark.parametrize(("error", "holds"), [(0.025, True), (0.025 * (USELESS + 1), False)])
def test_choosing_among_useless_defenses_is_charged(error: float, holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve defenses that break just more often than is allowed: at 2.5 % each, many studies call one of them safe."""
    monkeypatch.setattr(tradeoff, "FAMILY_ERROR", error)
    limit = upper_mean_bound([0.0] * RUNS, 1 - 0.025 / (USELESS + 1))
    conditions = [NONE, *(DefenseCondition(str(i), "closest", "plain", ("mixing",)) for i in range(USELESS))]
    exact = {low: make_rate(low, low=low, high=low) for low in (0.0, 1.0)}  # endless prompts
    benign = make_rate(0.0, "near", low=0.0, high=0.0)

    def made(name: str, seed: int, broken: bool) -> RunResult:
        facts = {"draw": seed, "seed": seed, "step": 4} | ({} if name == "none" else {"defense": name})
        record = RunResult if name == "none" else DefendedRun
        return record.model_validate(make_run("a/closest/0.25/audio", [exact[float(broken)], benign], **facts))

    by_count = []  # rows of all conditions by the number of runs that break
    for count in range(RUNS + 1):
        runs = [made(one.name, seed, seed < count) for one in conditions for seed in range(RUNS)]
        rows = safety_utility_tradeoff(runs, conditions, last_step=4, axis="a")
        by_count.append([one.model_copy(update={"over_refusal_ceiling": 0.0}) for one in rows])
    broken = np.random.default_rng(0).binomial(RUNS, limit + 0.001, (STUDIES, USELESS + 1))
    studies = ([by_count[count][i] for i, count in enumerate(study)] for study in broken.tolist())
    called_safe = sum(any(is_safe(one, limit, 0.1) for one in study) for study in studies)
    assert (called_safe / STUDIES <= 0.04) == holds
