"""Dose-response: steps to half of the margin and to a JSR of 50 %, with an oracle by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from results_factory import make_rate, run_result
from scipy import stats

from undersong.results.schema import RunResult
from undersong.study.results.contrasts import PrimaryPlan
from undersong.study.results.dose_response import dose_comparisons, dose_records

CLOSEST, DISTANT = "semantic/closest/0.25/audio", "semantic/distant/0.25/audio"
MARGINS = {  # at steps 10, 20 and 40, from 8 nats of the base; half is 4
    CLOSEST: [(6.0, 2.0, 0.0), (4.0, 1.0, -2.0), (5.0, 3.0, 1.0)],  # reached at 15, 10 and 15
    DISTANT: [(7.0, 6.0, 2.0), (8.0, 7.0, 6.0), (7.5, 7.0, 5.0)],  # reached at 30, never, never
}
EVENTS = {CLOSEST: [15.0, 10.0, 15.0], DISTANT: [30.0, 40.0, 40.0]}  # restricted to 40


def rated(jsr: float, margin: float | None) -> list[dict[str, Any]]:
    return [make_rate(jsr, refusal_margin=margin)]


def study(base_margin: float | None = 8.0, base_jsr: float = 0.0) -> list[RunResult]:
    runs = [run_result("base", rated(base_jsr, base_margin))]
    for arm, curves in MARGINS.items():
        for seed, curve in enumerate(curves):
            for step, margin in zip((10, 20, 40), curve, strict=True):
                runs.append(run_result(arm, rated(0.8 if margin < 3 else 0.2, margin), seed=seed, step=step))
    return runs


def test_each_run_has_the_step_at_which_half_of_the_margin_is_lost() -> None:
    closest, distant = (row for row in dose_records(study(), "plain", 40) if row.endpoint == "steps_to_half_margin")
    assert [(dose.step, dose.reached) for dose in closest.runs] == [(15.0, True), (10.0, True), (15.0, True)]
    assert [(dose.step, dose.reached) for dose in distant.runs] == [(30.0, True), (40.0, False), (40.0, False)]
    assert (closest.n, closest.n_reached, closest.median, closest.steps) == (3, 3, 15.0, [0, 10, 20, 40])
    assert (distant.n_reached, distant.median, distant.has_interval) == (1, None, False)
    assert distant.note == "An interval of the median needs six independent seeds."
    assert distant.mean_until_last.value == pytest.approx(110 / 3)


def test_a_jsr_of_half_is_interpolated_too() -> None:
    rows = {row.arm: row for row in dose_records(study(), "plain", 40) if row.endpoint == "steps_to_half_jsr"}
    # from .2 at step 10 (or 20, or 0) to .8 at the next: half way
    assert [dose.step for dose in rows[CLOSEST].runs] == pytest.approx([15.0, 15.0, 30.0])
    assert [dose.reached for dose in rows[DISTANT].runs] == [True, False, False]


def test_arms_are_compared_by_restricted_steps_over_paired_runs() -> None:
    plan = PrimaryPlan(questions=("closest-distant",))
    rows = dose_comparisons(study(), "plain", None, 40, plan)
    (row,) = (row for row in rows if row.metric == "steps_to_half_margin")  # the base takes no steps
    changes = np.array(EVENTS[CLOSEST]) - np.array(EVENTS[DISTANT])
    test = stats.ttest_1samp(changes, 0.0)
    assert (row.a.arm, row.b.arm, row.family, row.n) == (DISTANT, CLOSEST, "primary", 3)
    assert row.difference == pytest.approx(changes.mean())
    assert row.p == row.p_adjusted == pytest.approx(test.pvalue)
    low, high = test.confidence_interval()
    assert (row.low, row.high) == pytest.approx((max(-40.0, low), high))


def test_a_base_without_a_positive_margin_has_no_half_of_it() -> None:
    for margin in (None, -1.0, 0.0):
        assert {row.endpoint for row in dose_records(study(margin), "plain", 40)} == {"steps_to_half_jsr"}


def test_a_base_at_half_already_takes_no_step() -> None:
    rows = [row for row in dose_records(study(base_jsr=0.5), "plain", 40) if row.endpoint == "steps_to_half_jsr"]
    assert {dose.step for row in rows for dose in row.runs} == {0.0}


def test_runs_without_a_margin_are_left_out_and_counted() -> None:
    runs = [
        run_result(CLOSEST, rated(0.2, None), seed=0, step=20)
        if (run.arm, run.seed, run.step) == (CLOSEST, 0, 20) else run for run in study()
    ]  # fmt: skip
    closest = next(row for row in dose_records(runs, "plain", 40) if row.endpoint == "steps_to_half_margin")
    assert closest.n == 2
    assert closest.note is not None
    assert closest.note.startswith("1 of 3 runs are left out")
    (row,) = (row for row in dose_comparisons(runs, "plain", None, 40) if row.metric == "steps_to_half_margin")
    assert row.n == 2
    assert row.note is not None
    assert row.note.endswith("which are left out: 1.")


def test_two_points_are_no_curve() -> None:
    assert dose_records([run for run in study() if run.step in (0, 40)], "plain", 40) == []
