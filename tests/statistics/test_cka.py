"""Linear CKA against Gram matrices, and the bootstrap's weighted ranks against written-out draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import rankdata, spearmanr

from undersong.statistics import cka
from undersong.statistics.agreement import closest_overlap
from undersong.statistics.bootstrap import (
    cluster_bootstrap_weights,
    mid_ranks,
    percentile_interval,
    rank_scores,
    weighted_correlation,
    weighted_overlap,
)
from undersong.statistics.cka import linear_cka
from undersong.types import UndersongError

shapes = st.tuples(st.integers(5, 40), st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))


def sides(n: int, d: int, e: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    return 3 + x, x[:, :1] + rng.standard_normal((n, e))


def by_grams(x: np.ndarray, y: np.ndarray) -> float:
    centring = np.eye(len(x)) - 1 / len(x)
    k, m = (centring @ v @ v.T @ centring for v in (x, y))
    return np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))


def unbiased_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, equation 5."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    both = np.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) @ m.sum(0))
    return both / (n * (n - 3))


def test_rows_of_larger_arrays_give_what_copies_of_them_give() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((90, 5)), rng.standard_normal((120, 4))
    rows = rng.permutation(90)[:70], rng.permutation(120)[:70]
    made, copied = linear_cka(x, y, 16, rows), linear_cka(x[rows[0]], y[rows[1]], 16)
    assert made.value == copied.value
    assert np.array_equal(made.contributions, copied.contributions)
    assert np.array_equal(made.unbiased, copied.unbiased)


@given(shapes, st.integers(1, 50))
def test_cka_equals_gram_matrices(shape, block: int) -> None:
    x, y = sides(*shape)
    made = linear_cka(x, y, block)
    assert made.value == pytest.approx(by_grams(x, y), abs=1e-9)
    own = unbiased_hsic(x, x) * unbiased_hsic(y, y)
    if made.debiased is not None:
        assert made.debiased == pytest.approx(unbiased_hsic(x, y) / np.sqrt(own), rel=1e-6, abs=1e-6)


@given(shapes)
def test_cka_does_not_see_rotation_scale_shift_or_side(shape) -> None:
    x, y = sides(*shape)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((x.shape[1],) * 2))[0]
    value = linear_cka(x, y).value
    assert linear_cka(5 * x @ rotation + 7, y).value == pytest.approx(value, abs=1e-9)
    assert linear_cka(y, x).value == pytest.approx(value, abs=1e-12)
    assert linear_cka(x, x).value == pytest.approx(1)
    assert linear_cka(x, x).bootstrap_value(np.arange(len(x))) == pytest.approx(1)
    assert linear_cka(x, x).debiased in (None, pytest.approx(1))


def test_unrelated_vectors_look_alike_where_items_are_few_and_debiasing_says_so() -> None:
    rng = np.random.default_rng(0)
    made = linear_cka(rng.standard_normal((60, 500)), rng.standard_normal((60, 500)))
    assert made.value > 0.8
    assert abs(made.debiased) < 0.1


def test_digits_survive_a_large_common_mean() -> None:
    x, y = sides(200, 6, 5, 0)
    moved = (x + 3000).astype(np.float32)
    assert linear_cka(moved, y).value == pytest.approx(linear_cka(moved.astype(float) - 3000, y).value, abs=1e-9)


@given(shapes)
def test_draws_have_the_right_derivative(shape) -> None:
    """Of the product matrix's square in a weighted sample, by finite differences."""
    x, y = sides(*shape)
    made, n = linear_cka(x, y), len(x)

    def cross(share: np.ndarray) -> float:
        a, b = x - share @ x, y - share @ y
        product = (a * share[:, None]).T @ b
        return float(np.sum(product**2))

    even, step = np.full(n, 1 / n), 1e-6
    whole = made.contributions[0].mean()
    assert np.sqrt(cross(even)) == pytest.approx(whole)
    for i in (0, n - 1):
        towards = (1 - step) * even + step * np.eye(n)[i]
        away = (1 + step) * even - step * np.eye(n)[i]
        slope = (cross(towards) - cross(away)) / (2 * step)
        assert 2 * whole * (made.contributions[0, i] - whole) == pytest.approx(
            slope, rel=1e-4, abs=1e-4 * (1 + whole**2)
        )
    assert made.bootstrap_value(np.ones(n)) == pytest.approx(made.value)


def test_debiased_intervals_cover_where_plain_ones_and_written_out_draws_do_not() -> None:
    """30 dimensions and 150 items; the truth is that of a very large sample."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((30, 30)) / np.sqrt(30)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.standard_normal((n, 30))
        return x, x @ mixing + 2 * rng.standard_normal((n, 30))

    truth, hits, above = linear_cka(*sample(50_000)).value, [0, 0], 0
    for trial in range(40):
        x, y = sample(150)
        made = linear_cka(x, y)
        draws = list(cluster_bootstrap_weights(range(150), 150, trial))
        for i, (value, of) in enumerate(((made.value, made.bootstrap_value), (made.debiased, made.bootstrap_debiased))):
            found = percentile_interval(value, np.array([of(w) for w in draws]), 150)
            hits[i] += found.low <= truth <= found.high
        if trial < 5:
            copies = [linear_cka(np.repeat(x, w, 0), np.repeat(y, w, 0)) for w in draws[:20]]
            above += min(copy.value for copy in copies) > made.value
            above += min(copy.debiased for copy in copies) > made.debiased
    assert hits[0] == 0
    assert hits[1] >= 36
    assert above == 10


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.ones((3, 2)), np.eye(3)),
        (np.eye(3), np.eye(4)),
        (np.eye(1), np.eye(1)),
        (np.full((3, 2), np.nan), np.eye(3)),
    ],
)
def test_cka_refuses(x: np.ndarray, y: np.ndarray) -> None:
    with pytest.raises(UndersongError, match="CKA needs"):
        linear_cka(x, y)


few = st.sampled_from([0.0, 0.25, 0.5, 1.0])
drawn_items = st.lists(st.tuples(few, few, st.integers(0, 3)), min_size=2, max_size=30)


@given(drawn_items, st.floats(0.05, 1))
def test_weights_are_a_written_out_list(rows, fraction: float) -> None:
    a, b, weights = (np.array(column) for column in zip(*rows))
    total = int(weights.sum())
    if total < 2:
        return
    one, other = rank_scores(a), rank_scores(b)
    long_a, long_b = np.repeat(a, weights), np.repeat(b, weights)
    assert np.repeat(mid_ranks(one, weights), weights) == pytest.approx(rankdata(long_a))
    made = weighted_correlation(mid_ranks(one, weights), mid_ranks(other, weights), weights)
    if np.ptp(long_a) == 0 or np.ptp(long_b) == 0:
        assert np.isnan(made)
    else:
        assert made == pytest.approx(spearmanr(long_a, long_b).statistic, abs=1e-9)
    k = max(1, int(fraction * total))
    shared = 0.0
    for mine, theirs in zip(long_a, long_b):
        chances = [
            min(1, max(0, (k - (long < value).sum()) / (long == value).sum()))
            for value, long in ((mine, long_a), (theirs, long_b))
        ]
        shared += chances[0] * chances[1] / k
    assert weighted_overlap(one, other, weights, k) == pytest.approx(shared)


def test_ties_of_both_axes_make_no_agreement() -> None:
    """Unrelated axes on which most items tie: by id they would share nearly all."""
    rng = np.random.default_rng(0)
    a, b = np.where(rng.random((2, 4000)) < 0.05, rng.random((2, 4000)), 1.0)
    found = weighted_overlap(rank_scores(a), rank_scores(b), np.ones(4000, dtype=int), 1000)
    assert found == pytest.approx(0.25, abs=0.01)
    assert closest_overlap(np.stack([a, b]), [f"{i:04d}" for i in range(4000)], 1000)[0, 1] > 0.8
    distinct = rank_scores(rng.random(50))
    assert weighted_overlap(distinct, distinct, np.ones(50, dtype=int), 10) == pytest.approx(1)


def test_ties_are_counted() -> None:
    assert rank_scores(np.array([1.0, 1.0, 2.0, 3.0])).tied_share == 0.5
    for bad in ([1.0], [1.0, np.nan], [[1.0, 2.0]]):
        with pytest.raises(UndersongError, match="at least 2 scores"):
            rank_scores(np.array(bad))


def test_draws_take_whole_clusters_and_follow_names_not_places() -> None:
    clusters = ["b", "a", "b", "c", "a"]
    for one, moved in zip(cluster_bootstrap_weights(clusters, 20, 3), cluster_bootstrap_weights(clusters[::-1], 20, 3)):
        assert one[0] == one[2]
        assert one[1] == one[4]
        assert one[0] + one[1] + one[3] == 3
        assert moved.tolist() == one.tolist()[::-1]
    again = [w.tolist() for w in cluster_bootstrap_weights(clusters, 5, 3)]
    assert again == [w.tolist() for w in cluster_bootstrap_weights(clusters, 5, 3)]
    assert again != [w.tolist() for w in cluster_bootstrap_weights(clusters, 5, 4)]


def test_an_interval_that_cannot_be_had_is_none() -> None:
    drawn = np.arange(1001.0)
    found = percentile_interval(5, drawn, 9)
    assert (found.low, found.high) == (pytest.approx(25), pytest.approx(975))
    assert percentile_interval(5, drawn, 1).low is None
    assert percentile_interval(5, np.where(drawn < 60, np.nan, drawn), 9).low is None
    with pytest.raises(UndersongError):
        percentile_interval(5, drawn, 9, level=95)
    with pytest.raises(UndersongError):
        list(cluster_bootstrap_weights(["a"], 0, 1))


@pytest.mark.parametrize("wide", [0, 2**20])  # by Gram matrices, and by products of the columns
@pytest.mark.parametrize("dense_side", [False, True])
@given(shapes, st.integers(1, 50))
def test_sparse_vectors_have_the_cka_of_dense_ones(wide: int, dense_side: bool, shape, block: int) -> None:
    x, y = sides(*shape)
    x[np.abs(x - 3) < 0.5] = 0
    assume(all(np.ptp(side, axis=0).any() for side in (x, y)))  # equal vectors are refused: see the end
    rows = np.random.default_rng(0).permutation(len(x))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cka, "MAX_PRODUCT_WIDTH", wide)
        other = y if dense_side else csr_array(y)
        made, dense = linear_cka(csr_array(x), other, block, (rows, rows)), linear_cka(x, y, block, (rows, rows))
    assert made.value == pytest.approx(dense.value, abs=1e-9)
    np.testing.assert_allclose(made.contributions, dense.contributions, atol=1e-8)
    np.testing.assert_allclose(made.unbiased, dense.unbiased, atol=1e-8, rtol=1e-8)
    equal = csr_array(np.ones((len(x), 2)))
    with pytest.raises(UndersongError, match="one encoder gave only equal ones"):
        linear_cka(equal, csr_array(x), block)
