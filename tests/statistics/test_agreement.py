"""Multiplicity, agreement and balance against oracles and hand-made cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from statsmodels.stats.multitest import multipletests

from undersong.statistics.agreement import closest_overlap, kappa, kappa_interval, spearman
from undersong.statistics.balance import group_balance, imbalance, jaccard, standardized_difference
from undersong.statistics.multiple_testing import holm
from undersong.types import UndersongError


def naive_holm(ps):
    adjusted, running = dict.fromkeys(range(len(ps)), 0.0), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return [adjusted[index] for index in range(len(ps))]


@given(st.lists(st.floats(0, 1, allow_nan=False), min_size=1, max_size=12))
def test_holm_equals_a_naive_loop(ps):
    assert holm(ps) == pytest.approx(naive_holm(ps))
    assert holm(ps) == multipletests(ps, method="holm")[1].tolist()  # which the core does without


def test_holm_passes_over_what_was_not_measured():
    assert holm([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04])
    assert holm([None, None]) == [None, None]
    assert holm([]) == []


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_p(p):
    with pytest.raises(UndersongError):
        holm([0.5, p])


def test_kappa_by_hand():
    a, b = ["jailbreak"] * 5 + ["refusal"] * 5, ["jailbreak"] * 4 + ["refusal"] * 6
    assert kappa(a, b) == pytest.approx((0.9 - 0.5) / (1 - 0.5))
    assert kappa(a, a) == 1
    assert kappa(["refusal"] * 3, ["refusal"] * 3) is None


@pytest.mark.parametrize(("a", "b"), [([], []), (["refusal"], [])])
def test_kappa_needs_the_same_prompts(a, b):
    with pytest.raises(UndersongError):
        kappa(a, b)


def test_spearman_equals_scipy_with_ties():
    scores = np.random.default_rng(0).integers(0, 6, (4, 50)).astype(float)
    assert spearman(scores) == pytest.approx(spearmanr(scores, axis=1).statistic)
    assert spearman(scores[:1]) == pytest.approx(np.ones((1, 1)))
    assert spearman(np.stack([scores[0], -scores[0]]))[0, 1] == pytest.approx(-1)


@pytest.mark.parametrize("row", [[1.0, 1.0, 1.0], [1.0, np.nan, 2.0], [0.0, np.inf, 1.0]])
def test_spearman_refuses_an_axis_that_ranks_nothing(row):
    with pytest.raises(UndersongError):
        spearman(np.array([[1.0, 2.0, 3.0], row]))


def test_overlap_of_the_closest():
    ids = ["d", "c", "b", "a"]
    scores = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.2, 0.1, 0.4, 0.3]])
    found = closest_overlap(scores, ids, 2)
    assert found.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_overlap_breaks_ties_by_id():
    scores = np.array([[0.5, 0.5, 0.5, 0.1], [0.9, 0.9, 0.1, 0.2]])
    assert closest_overlap(scores, ["z", "b", "c", "d"], 2)[0, 1] == 0.5  # {d, b} and {c, d}


@pytest.mark.parametrize("k", [0, 4])
def test_overlap_refuses_an_impossible_k(k):
    with pytest.raises(UndersongError):
        closest_overlap(np.array([[1.0, 2.0, 3.0]]), ["a", "b", "c"], k)


def test_balance_by_hand():
    found = group_balance(["A", "A", "A", "B"], ["A"] * 4 + ["B"] * 4 + ["C"] * 2)
    assert list(found) == ["A", "B", "C"]
    assert found["A"][:2] == (0.75, 0.4)
    assert found["A"].standardized_difference == pytest.approx(0.35 / np.sqrt((0.1875 + 0.24) / 2))
    assert found["C"].standardized_difference == pytest.approx(-0.2 / np.sqrt(0.16 / 2))


@given(st.lists(st.sampled_from("ABC"), min_size=1, max_size=30))
def test_a_pool_is_balanced_with_itself(pool):
    found = group_balance(pool, pool)
    assert set(found) == set(pool)
    for value, row in found.items():
        assert row == (pool.count(value) / len(pool), pool.count(value) / len(pool), 0)


@pytest.mark.parametrize(("selected", "pool"), [([], ["A"]), (["A"], []), (["B"], ["A"]), (["A", "A"], ["A", "B"])])
def test_balance_refuses_what_is_not_a_selection(selected, pool):
    with pytest.raises(UndersongError):
        group_balance(selected, pool)


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
def test_jaccard_is_symmetric_and_a_share(a, b):
    first, second = [str(i) for i in a], [str(i) for i in b]
    if not a | b:
        with pytest.raises(UndersongError):
            jaccard(first, second)
        return
    assert jaccard(first, second) == jaccard(second, first) == len(a & b) / len(a | b)


@given(st.lists(st.sampled_from("ABC"), min_size=2, max_size=30), st.data())
def test_imbalance_sums_up_balance(pool, data):
    selected = data.draw(st.lists(st.sampled_from(range(len(pool))), min_size=1, unique=True).map(sorted))
    mine = [pool[i] for i in selected]
    rows, found = group_balance(mine, pool), imbalance(mine, pool)
    assert found.values == len(rows)
    assert abs(found.largest) == max(abs(row.standardized_difference) for row in rows.values())
    assert rows[found.of].standardized_difference == found.largest
    # What would have to be exchanged: everything the selection has too much of.
    surplus = sum(max(0, row.share_selected - row.share_pool) for row in rows.values())
    assert found.moved == pytest.approx(surplus)


def test_standardized_by_hand():
    assert standardized_difference(np.array([3.0, 5.0]), np.array([1.0, 3.0, 5.0])) == pytest.approx(
        1 / np.sqrt((1 + 8 / 3) / 2)
    )
    assert standardized_difference(np.array([0.1] * 3), np.array([0.1] * 7)) == 0
    assert standardized_difference(np.array([1.0]), np.array([0.0])) == np.inf
    for bad in ([], [np.nan]):
        with pytest.raises(UndersongError):
            standardized_difference(np.array(bad), np.array([1.0]))


def test_kappa_has_an_interval_over_whole_clusters() -> None:
    """The value is scikit-learn's; copies of a prompt make an interval no narrower."""
    rng = np.random.default_rng(0)
    a = rng.random(60) < 0.4
    b = np.where(rng.random(60) < 0.8, a, ~a)
    one = kappa_interval(a.tolist(), b.tolist(), list(range(60)), draws=400)
    words = [["yes" if value else "no" for value in side] for side in (a, b)]
    assert one.value == pytest.approx(kappa(*words))
    assert one.low < one.value < one.high
    twice = kappa_interval(np.tile(a, 4).tolist(), np.tile(b, 4).tolist(), list(range(60)) * 4, draws=400)
    assert twice.value == pytest.approx(one.value)
    assert twice.high - twice.low == pytest.approx(one.high - one.low, rel=0.01)
    assert kappa_interval([True] * 5, [True] * 5, list(range(5))) is None
    with pytest.raises(UndersongError, match="same items"):
        kappa_interval([True], [True, False], [0, 1])


def test_the_interval_of_kappa_covers() -> None:
    """400 samples of 80 items in clusters of two, from judges whose true kappa is known by their confusion."""
    inside, a_yes, flip = 0, 0.4, 0.15
    agree, b_yes = 1 - flip, a_yes * (1 - flip) + (1 - a_yes) * flip
    chance = a_yes * b_yes + (1 - a_yes) * (1 - b_yes)
    truth = (agree - chance) / (1 - chance)
    for seed in range(400):
        rng = np.random.default_rng(seed)
        a, flipped = np.repeat(rng.random(40) < a_yes, 2), np.repeat(rng.random(40) < flip, 2)
        found = kappa_interval(a.tolist(), (a ^ flipped).tolist(), [i // 2 for i in range(80)], draws=150, seed=seed)
        inside += found is not None and found.low is not None and found.low <= truth <= found.high
    assert inside / 400 > 0.88  # percentile intervals of 40 clusters run short of 95 %
