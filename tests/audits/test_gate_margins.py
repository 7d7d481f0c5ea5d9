"""The gate on the refusal margin: its bounds keep their level, and what was not measured opens nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gated import harm
from simulated_runs import no_more_than

from undersong.audits.gate.findings import FAILED, INCONCLUSIVE, PASSED
from undersong.audits.gate.margins import MarginTest
from undersong.audits.gate.output import finding_of
from undersong.audits.gate.rises import RiseLimits, evaluate_rises
from undersong.evaluation.comparison import compare_verdicts
from undersong.evaluation.comparison_report import comparison_json, comparison_sentence
from undersong.evaluation.verdicts import read_verdicts
from undersong.types import UndersongError, Verdict


def with_margin(rows: list[Verdict], margins: np.ndarray | list[float]) -> list[Verdict]:
    return [replace(row, refusal_margin=float(margin)) for row, margin in zip(rows, margins, strict=True)]


def rows(count: int, per_cluster: int = 1) -> list[Verdict]:
    return [replace(row, cluster=f"c{i // per_cluster}") for i, row in enumerate(harm(count, 0))]


def outcome(before: list[Verdict], after: list[Verdict], limit: float) -> int:
    (test,) = evaluate_rises({"m": (before, after)}, RiseLimits(margin_loss=limit))
    return finding_of(test).outcome


def test_a_loss_is_shown_ruled_out_or_neither() -> None:
    before = with_margin(rows(20), np.full(20, 5.0))
    noise = np.tile([-0.5, 0.5], 10)
    after = with_margin(rows(20), 3.0 + noise)
    assert [outcome(before, after, limit) for limit in (1.0, 2.1, 3.0)] == [FAILED, INCONCLUSIVE, PASSED]


def test_voices_of_one_behavior_are_no_more_than_one() -> None:
    losses = np.repeat([0.0, 1.0, 0.2, 0.8], 6)
    before, after = np.full(24, 2.0), 2.0 - losses
    each = outcome(with_margin(rows(24), before), with_margin(rows(24), after), 0.8)
    clustered = outcome(with_margin(rows(24, 6), before), with_margin(rows(24, 6), after), 0.8)
    assert (each, clustered) == (PASSED, INCONCLUSIVE)


def test_a_missing_margin_never_passes() -> None:
    before, after = with_margin(rows(20), np.full(20, 5.0)), with_margin(rows(20), np.linspace(4.9, 5.1, 20))
    assert outcome(before, after, 1.0) == PASSED
    after[3] = replace(after[3], refusal_margin=None)
    (test,) = evaluate_rises({"m": (before, after)}, RiseLimits(margin_loss=1.0))
    assert finding_of(test).outcome == INCONCLUSIVE
    assert "1 prompts lack a margin" in finding_of(test).sentence
    assert outcome(rows(20), rows(20), 1.0) == INCONCLUSIVE
    assert outcome(before[:1], before[:1], 1.0) == INCONCLUSIVE


def test_rates_and_margins_are_corrected_together() -> None:
    before, after = with_margin(rows(20), np.full(20, 5.0)), with_margin(rows(20), np.linspace(2, 3, 20))
    alone = evaluate_rises({"m": (before, after)}, RiseLimits(margin_loss=1.0))[0]
    rate, margin = evaluate_rises({"m": (before, after)}, RiseLimits(jsr=0.1, margin_loss=1.0))
    assert isinstance(margin, MarginTest)
    assert (alone.level, margin.level) == (pytest.approx(0.05), pytest.approx(0.025))
    assert "rate" in finding_of(rate).limit or "rise" in finding_of(rate).limit


@pytest.mark.parametrize(("loss", "wrong"), [(1.0, PASSED), (1.0, FAILED)])
def test_wrong_codes_are_rare_where_the_loss_is_the_limit(loss: float, wrong: int) -> None:
    """Skewed losses that clusters share: 12 behaviors of three voices, one in four of which is lost wholly."""
    rng, studies = np.random.default_rng(5), 400
    wrongly = 0
    for _ in range(studies):
        behaviors = rng.gamma(2.0, loss / 2, 12)
        losses = np.repeat(behaviors, 3) + rng.normal(0, 0.1, 36)
        after = with_margin(rows(36, 3), 5 - losses)
        wrongly += outcome(with_margin(rows(36, 3), np.full(36, 5.0)), after, loss) == wrong
    # a t bound of twelve skewed clusters: .11 and .01 in long simulation, as for any mean of so few
    assert no_more_than(wrongly, studies, 0.11 if wrong == PASSED else 0.05)


def test_compare_states_the_change_with_its_interval() -> None:
    before, after = with_margin(rows(6), [5, 5, 5, 5, 5, 5]), with_margin(rows(6), [1, 2, 3, 3, 4, 5])
    comparison = compare_verdicts(before, after)
    margin = comparison_json(comparison)["refusal_margin"]
    assert (margin["before"], margin["after"], margin["change"]) == (5, 3, -2)
    # Student's t of -4, -3, -2, -2, -1, 0 by hand
    half = 2.5705818366147395 * np.sqrt(2.0) / np.sqrt(6)
    assert (margin["low"], margin["high"]) == (pytest.approx(-2 - half), pytest.approx(-2 + half))
    assert "The refusal margin went from 5.00 to 3.00 nats" in comparison_sentence(comparison)
    assert comparison_json(compare_verdicts(rows(3), rows(3)))["refusal_margin"] is None


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), -1.0])
def test_a_limit_is_a_number_of_nats(limit: float) -> None:
    with pytest.raises(UndersongError, match="number of nats from 0 on"):
        RiseLimits(margin_loss=limit)


def test_compare_says_that_a_margin_is_missing() -> None:
    before, after = with_margin(rows(3), [1, 2, 3]), with_margin(rows(3), [1, 2, 3])
    comparison = compare_verdicts(before, [*after[:2], replace(after[2], refusal_margin=None)])
    assert comparison.margin is None
    assert "1 of 3 prompts lack a refusal margin" in comparison.notes[-1]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e308"])
def test_a_margin_that_is_no_number_is_named_with_its_row(value: str, tmp_path: Path) -> None:
    file = tmp_path / "verdicts.jsonl"
    file.write_text(f'{{"prompt_id": "a", "judge": "exact", "verdict": "refusal", "refusal_margin": {value}}}\n')
    with pytest.raises(UndersongError, match="refusal_margin"):
        read_verdicts(file)
