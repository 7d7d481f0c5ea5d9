"""The change of the late gap over runs: by hand, within each base, and beside the JSR."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from results_factory import make_rate, run_result
from scipy import stats

from undersong.proximity.selection import Selection
from undersong.research.results.mechanism_tests import GapChange, GapTests
from undersong.results.schema import RunResult
from undersong.results.schema_mechanism import LateSuppression
from undersong.stages.training import StudyArm
from undersong.statistics import regression

# Trained on text the closest arm loses most, and typed prompts show it most; trained on audio hardly anything happens.
LEVEL = {
    ("closest", "text", "text"): -0.8, ("closest", "text", "audio"): -0.3, ("closest", "audio", "audio"): -0.2,
    ("closest", "audio", "text"): 0.0, ("distant", "text", "text"): 0.0, ("distant", "text", "audio"): 0.0,
    ("distant", "audio", "audio"): 0.0, ("distant", "audio", "text"): 0.0,
}  # fmt: skip
JSR = {("closest", "text"): 0.8, ("closest", "audio"): 0.2, ("distant", "text"): 0.1, ("distant", "audio"): 0.05}


def noise(*key: Any) -> float:
    return float(np.random.default_rng([len(str(one)) * 7 + ord(str(one)[0]) for one in key]).normal(0, 0.02))


def arm(kind: str, trained: str, seed: int, model: str = "m") -> StudyArm:
    chosen = Selection("a", "nearest", kind, 0.25, 1, None, (kind,), kind)
    return StudyArm(model, 0, "a", kind, 0.25, trained, seed, seed, chosen)


def changes(model: str = "m", times: float = 1.0) -> list[GapChange]:
    return [
        GapChange(arm(kind, trained, seed, model), probed, times * (level + noise(kind, trained, probed, seed)))
        for (kind, trained, probed), level in LEVEL.items()
        for seed in range(3)
    ]


def runs(model: str = "m") -> list[RunResult]:
    return [
        run_result(
            arm(kind, trained, seed).name,
            [make_rate(jsr + abs(noise(kind, trained, seed, asked)), modality=asked) for asked in ("audio", "text")],
            model=model, kind=kind, seed=seed, draw=seed, step=40,
        )
        for (kind, trained), jsr in JSR.items()
        for seed in range(3)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def found() -> GapTests:
    return GapTests(changes(), runs(), "harm", "plain", 40)


def late(kind: str, trained: str, probed: str) -> np.ndarray:
    return np.array([LEVEL[kind, trained, probed] + noise(kind, trained, probed, seed) for seed in range(3)])


def test_claims_are_paired_over_runs(found: GapTests) -> None:
    assert len(found.comparisons()) == 4
    for claim in found.comparisons():
        trained, probed = claim.train_modality, claim.modality
        each = late("closest", trained, probed) - late("distant", trained, probed)
        test = stats.ttest_1samp(each, 0.0)
        assert claim.difference == pytest.approx(each.mean())
        assert claim.p == pytest.approx(test.pvalue)
        assert claim.p_adjusted >= claim.p
        assert claim.n == 3


def test_the_two_by_two_is_of_each_kind(found: GapTests) -> None:
    cells = {(one.kind, one.train_modality, one.modality): one for one in found.changes_by_modality()}
    assert set(cells) == set(product(("closest", "distant"), ("audio", "text"), ("audio", "text")))
    for key, cell in cells.items():
        assert cell.change == pytest.approx(late(*key).mean())
        assert cell.low < cell.change < cell.high


def suppression(late_change: float, early_change: float, n_layers: int = 8, spread: float = 0.02) -> LateSuppression:
    """Three runs on the closest audio whose late and early gaps change by so much."""
    runs_of = [
        GapChange(arm("closest", "audio", seed), "audio", late_change + spread * seed,
                  None if n_layers < 6 else late_change - early_change + spread * (seed == 1))
        for seed in range(3)
    ]  # fmt: skip
    (found,) = GapTests(runs_of, [], "harm", "plain", 40).late_suppression(n_layers)
    return found


def test_late_suppression_falls_late_and_more_than_early() -> None:
    late, early = suppression(-1.0, -0.2), suppression(-0.3, -1.2)
    assert late.outcome == "late"
    assert late.high < 0
    assert late.p == pytest.approx(stats.ttest_1samp([-0.8, -0.78, -0.8], 0.0).pvalue)
    assert early.outcome == "early"  # the late gap falls here too
    assert early.low > 0
    assert suppression(-0.5, -0.5).outcome == "undecided"
    assert suppression(0.0, 0.8).outcome == "undecided"  # the early gap grows, and the late one does not fall


def test_a_shallow_decoder_gets_no_verdict() -> None:
    found = suppression(-1.0, 0.0, n_layers=4)
    assert (found.outcome, found.n, found.late_minus_early, found.p) == ("too shallow", 0, None, None)


def test_late_suppression_is_corrected_over_all_cells() -> None:
    cells = [
        GapChange(arm(kind, "audio", seed), "audio", -1.0 + 0.1 * seed, -0.5 + 0.2 * seed)
        for kind in ("closest", "distant")
        for seed in range(3)
    ]
    found = GapTests(cells, [], "harm", "plain", 40).late_suppression(8)
    assert [one.p_adjusted for one in found] == pytest.approx([2 * one.p for one in found])


def test_suppression_mirrors_damage_only_where_both_are_beyond_noise(found: GapTests) -> None:
    sides = {(one.kind, one.modality): one for one in found.asymmetries()}
    typed = sides["closest", "text"]
    assert typed.late_gap > 0  # trained on audio the gap falls less
    assert typed.rate_change < 0  # and less breaks
    assert typed.opposite_signs is True
    assert sides["distant", "text"].opposite_signs is None
    upside = GapTests(changes(times=-1.0), runs(), "harm", "plain", 40).asymmetries()
    assert next(one for one in upside if (one.kind, one.modality) == ("closest", "text")).opposite_signs is False


def test_four_arms_have_no_rank_correlation(found: GapTests) -> None:
    for row in found.gap_vs_jsr():
        assert (row.predictors, row.note) == ([], "4 arms are too few for a rank correlation (8 are needed).")


def test_arms_that_suppress_more_break_more(found: GapTests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "MIN_RANK_POINTS", 4)
    typed = next(one for one in found.gap_vs_jsr() if one.modality == "text")
    assert typed.points == 4
    (axis,) = typed.predictors
    assert axis.slope.value > 0
    assert axis.rank_correlation.value > 0


def test_bases_are_never_put_together(found: GapTests) -> None:
    both = GapTests([*changes(), *changes("n", 100.0)], [*runs(), *runs("n")], "harm", "plain", 40)
    assert [one for one in both.changes_by_modality() if one.model == "m"] == found.changes_by_modality()
    assert [one for one in both.gap_vs_jsr() if one.model == "m"] == found.gap_vs_jsr()
    assert len(both.comparisons()) == 8


def test_what_was_not_asked_has_no_entry() -> None:
    one = [change for change in changes() if change.arm.modality == "audio" and change.arm.kind == "closest"]
    alone = GapTests(one, [], "harm", "plain", 40)
    assert alone.comparisons() == alone.asymmetries() == alone.gap_vs_jsr() == []
    assert {(cell.train_modality, cell.modality) for cell in alone.changes_by_modality()} == {
        ("audio", "audio"),
        ("audio", "text"),
    }
