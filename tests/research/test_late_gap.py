"""Gaps by layer: what a common shift does not move, what clusters do, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from undersong.research.mechanism.directions import (
    LateMinusEarly,
    early_and_late_thirds,
    fit_direction,
    gap_curve,
    late_gap_change,
    late_layers,
    late_minus_early,
)

HARM, BENIGN = [f"h{i // 3}" for i in range(24)], [f"b{i // 2}" for i in range(20)]


def projections(seed: int, layers: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(1, 0.5, (layers, len(HARM))), rng.normal(-1, 0.5, (layers, len(BENIGN)))


def curve(harmful, harmless, harm=HARM, benign=BENIGN, seed=0):
    return gap_curve(harmful, harmless, harm, benign, np.random.default_rng(seed), draws=300)


def test_gaps_against_a_naive_loop() -> None:
    harmful, harmless = projections(0)
    harm = ["a"] * 20 + ["b", "b", "c", "d"]  # of unequal sizes: a cluster counts once
    found = curve(harmful, harmless, harm=harm)
    for layer in range(5):
        up = np.mean([np.mean([x for x, c in zip(harmful[layer], harm) if c == name]) for name in "abcd"])
        down = np.mean([harmless[layer, i : i + 2].mean() for i in range(0, 20, 2)])
        assert found.harmful[layer] == pytest.approx(up)
        assert found.benign[layer] == pytest.approx(down)
        assert found.gap[layer] == pytest.approx(up - down)
        assert found.low[layer] < found.gap[layer] < found.high[layer]


@settings(max_examples=30)
@given(st.integers(0, 999), st.floats(-50, 50))
def test_a_common_shift_does_not_move_the_gap(seed: int, size: float) -> None:
    """Of the hidden states themselves, in any direction: the projections move, and the gap does not."""
    rng = np.random.default_rng(seed)
    harmful, harmless = rng.normal(0.3, 1, (3, 24, 8)), rng.normal(-0.3, 1, (3, 20, 8))
    shift = size * rng.standard_normal((3, 1, 8))
    direction = fit_direction(rng.normal(0.5, 1, (3, 30, 8)), rng.normal(-0.5, 1, (3, 30, 8)))
    plain = curve(direction.project(harmful), direction.project(harmless))
    moved = curve(direction.project(harmful + shift), direction.project(harmless + shift))
    tolerance = 1e-9 * (1 + abs(size)) / direction.half_distance.min()
    np.testing.assert_allclose(moved.gap, plain.gap, atol=tolerance)
    np.testing.assert_allclose(moved.low, plain.low, atol=tolerance)
    along = np.einsum("lnd,ld->l", shift, direction.unit) / direction.half_distance
    np.testing.assert_allclose(moved.harmful - plain.harmful, along, atol=tolerance)


@settings(max_examples=20)
@given(st.integers(0, 999), st.integers(2, 4))
def test_more_prompts_of_the_same_behaviors_are_no_more_evidence(seed: int, times: int) -> None:
    harmful, harmless = projections(seed)
    plain = curve(harmful, harmless)
    doubled = curve(np.tile(harmful, times), np.tile(harmless, times), HARM * times, BENIGN * times)
    for name in ("gap", "low", "high", "harmful", "benign"):
        np.testing.assert_allclose(getattr(doubled, name), getattr(plain, name), atol=1e-12)


def test_clusters_that_agree_within_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    harmful = np.repeat(rng.normal(1, 1, (1, 8)), 3, axis=1)  # three voices say exactly the same
    harmless = rng.normal(-1, 0.01, (1, 20))

    def width(names: list[str]) -> float:
        found = curve(harmful, harmless, harm=names)
        return float(found.high[0] - found.low[0])

    assert width(HARM) > 1.3 * width([str(i) for i in range(24)])


def test_one_cluster_shows_no_noise() -> None:
    harmful, harmless = projections(0)
    for found in (curve(harmful, harmless, harm=["one"] * 24), curve(harmful, harmless, benign=["one"] * 20)):
        assert np.isfinite(found.gap).all()
        assert np.isnan(found.low).all()
        assert np.isnan(found.high).all()


def test_a_layer_without_a_direction_stays_without_a_gap() -> None:
    harmful, harmless = projections(0)
    plain = curve(harmful, harmless)
    harmful[0] = harmless[0] = np.nan
    found = curve(harmful, harmless)
    assert all(np.isnan(getattr(found, name)[0]) for name in ("gap", "low", "high", "harmful", "benign"))
    np.testing.assert_array_equal(found.low[1:], plain.low[1:])
    np.testing.assert_array_equal(found.gap[1:], plain.gap[1:])


def test_the_interval_covers() -> None:
    """Nominal 95 %: of 200 samples of 12 clusters the true gap of 2 is missed by some 5 to 12 %, as bootstraps do."""
    rng, hits = np.random.default_rng(0), 0
    names = [str(i) for i in range(12)]
    for _ in range(200):
        found = gap_curve(rng.normal(1, 1, (1, 12)), rng.normal(-1, 1, (1, 12)), names, names, rng, draws=300)
        hits += bool(found.low[0] <= 2 <= found.high[0])
    assert 170 <= hits <= 198


@pytest.mark.parametrize(
    ("layers", "expected"), [(1, [1]), (2, [2]), (4, [4]), (7, [7]), (8, [7, 8]), (28, list(range(22, 29)))]
)
def test_late_layers_are_the_last_quarter(layers: int, expected: list[int]) -> None:
    assert list(range(layers + 1))[late_layers(layers)] == expected


def test_the_late_change_of_a_constructed_case() -> None:
    before = projections(0, layers=9)  # the input and eight layers
    rng = np.random.default_rng(1)
    harmful, harmless = before[0].copy(), before[1].copy()
    harmful[:7] += 100  # early layers do not count
    harmful[7:] += np.array([[-1.0], [-0.5]]) + rng.normal(0, 0.2, len(HARM))
    harmless[7:] += 0.25
    noise = (harmful - before[0])[7:].mean(axis=0)
    expected = np.mean([noise[i : i + 3].mean() for i in range(0, 24, 3)]) - 0.25

    def change(clusters=(HARM, BENIGN)):
        return late_gap_change(before, (harmful, harmless), clusters, np.random.default_rng(0), draws=500)

    found, low, high = change()
    assert found == pytest.approx(expected)
    assert found == pytest.approx(-1, abs=0.1)
    assert low < -1 < high
    # paired: what prompts differ in before is in none of it
    assert high - low < 0.3
    assert change() == (found, low, high)
    same = late_gap_change(before, before, (HARM, BENIGN), np.random.default_rng(0), draws=50)
    assert same == (0.0, 0.0, 0.0)
    assert np.isnan(change((["one"] * 24, BENIGN))[1:]).all()


def test_the_late_change_respects_clusters() -> None:
    before, after = projections(0, layers=4), projections(1, layers=4)

    def change(times: int):
        sides = [tuple(np.tile(side, times) for side in pair) for pair in (before, after)]
        return late_gap_change(*sides, (HARM * times, BENIGN * times), np.random.default_rng(0), draws=200)

    np.testing.assert_allclose(change(1), change(3), atol=1e-12)


@pytest.mark.parametrize(
    ("layers", "early", "late"),
    [(6, [1, 2], [5, 6]), (8, [1, 2], [7, 8]), (9, [1, 2, 3], [7, 8, 9]), (30, [*range(1, 11)], [*range(21, 31)])],
)
def test_thirds_leave_out_the_input_and_the_middle(layers: int, early: list[int], late: list[int]) -> None:
    thirds = early_and_late_thirds(layers)
    assert thirds is not None
    assert [list(range(layers + 1))[third] for third in thirds] == [early, late]


def contrast(fall: dict[int, float], seed: int = 0, noise: float = 0.2, layers: int = 9) -> LateMinusEarly | None:
    """Of a gap that falls by so much at these layers (0: the input), with noise that a behavior's prompts share."""
    before = projections(seed, layers=layers)
    rng = np.random.default_rng([seed, 1])
    after = [
        side + rng.normal(0, noise, (layers, len(set(names))))[:, np.unique(names, return_inverse=True)[1]]
        for side, names in zip(before, (HARM, BENIGN))
    ]
    for layer, size in fall.items():
        after[0][layer] -= size
    return late_minus_early(before, (after[0], after[1]), (HARM, BENIGN), np.random.default_rng(0), draws=300)


def test_a_gap_that_falls_early_is_no_late_suppression() -> None:
    """The late gap falls in both cases, so a rule that tests only that tells them not apart."""
    early = contrast({1: 1.2, 2: 1.2, 7: 0.3, 8: 0.3})
    late = contrast({1: 0.3, 2: 0.3, 7: 1.2, 8: 1.2})
    assert early is not None
    assert late is not None
    assert (early.early, early.late, early.difference) == pytest.approx((-1.2, -0.3, 0.9), abs=0.15)
    assert (late.early, late.late, late.difference) == pytest.approx((-0.3, -1.2, -0.9), abs=0.15)
    assert early.low > 0
    assert late.high < 0
    assert max(early.p_value, late.p_value) < 1e-4


def test_the_contrast_is_of_paired_clusters() -> None:
    """By hand: each behavior gives one number, its late less its early change, and Welch's test compares the kinds."""
    before, after = projections(0, layers=7), projections(1, layers=7)
    found = late_minus_early(before, after, (HARM, BENIGN), np.random.default_rng(0), draws=300)
    assert found is not None
    values = []
    for kind, names in enumerate((HARM, BENIGN)):
        change = after[kind] - before[kind]
        each = (change[5] + change[6]) / 2 - (change[1] + change[2]) / 2
        values.append([np.mean([x for x, c in zip(each, names) if c == name]) for name in dict.fromkeys(names)])
    assert found.difference == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    assert found.late - found.early == pytest.approx(found.difference)
    assert found.p_value == pytest.approx(stats.ttest_ind(*values, equal_var=False).pvalue)
    assert found.low < found.difference < found.high


def test_a_suppression_alike_in_all_layers_is_rarely_called_late() -> None:
    """Nominal 5 %: of 200 contrasts of nothing, at most 18 have p <= .05 (a binomial exceeds this in 1 of 100)."""
    everywhere = dict.fromkeys(range(1, 9), 1.0)
    found = [contrast(everywhere, seed) for seed in range(200)]
    assert sum(one is not None and one.p_value <= 0.05 for one in found) <= 18


def test_a_shallow_decoder_has_no_contrast() -> None:
    assert early_and_late_thirds(5) is None
    assert contrast({}, layers=5) is None  # the input and four layers
