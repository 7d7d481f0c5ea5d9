"""Blocked distances against plain loops, and what must not depend on blocks, order or common means."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics.pairwise import cosine_distances

from undersong.proximity.distance_columns import MAX_REPEATED_ARGMAX
from undersong.proximity.distances import NearestDistances, first_equal_row, nearest_distances
from undersong.types import UndersongError

COLUMNS = ("distance", "second_distance", "knn_distance", "centroid_distance")
shapes = st.tuples(st.integers(1, 40), st.integers(1, 12), st.integers(2, 9), st.integers(0, 10_000))


def vectors(n: int, m: int, d: int, seed: int, mean: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(0, 3, size=(n + m, 1)))  # lengths must not matter
    both = (scale * (mean + rng.standard_normal((n + m, d)))).astype(np.float32)
    return both[:n], both[n:]


def by_loops(pool: np.ndarray, harm: np.ndarray, k: int) -> NearestDistances:
    """The definition in float64, one pool row after the other."""
    pool, harm = pool.astype(np.float64), harm.astype(np.float64)
    distances = cosine_distances(pool, harm)
    centroid = (harm / np.linalg.norm(harm, axis=1, keepdims=True)).mean(axis=0, keepdims=True)
    ordered = np.sort(distances, axis=1)
    second = ordered[:, 1] if len(harm) > 1 else np.full(len(pool), np.nan)
    to_centroid = cosine_distances(pool, centroid)[:, 0]
    return NearestDistances(ordered[:, 0], distances.argmin(axis=1), second, ordered[:, :k].mean(axis=1), to_centroid)


@pytest.mark.parametrize("mean", [0.0, 4.0])  # scattered, and clustered about a common mean: computed in two ways
@given(shapes, st.integers(1, 12), st.integers(1, 50))
def test_equals_the_definition(mean: float, shape, k: int, block: int) -> None:
    pool, harm = vectors(*shape, mean=mean)
    k = min(k, len(harm))
    made, expected = nearest_distances(pool, harm, k=k, block=block), by_loops(pool, harm, k)
    for column in COLUMNS:
        assert np.allclose(getattr(made, column), getattr(expected, column), atol=2e-6, equal_nan=True), column
    distances = cosine_distances(pool.astype(float), harm.astype(float))
    # Where two are equally near but for rounding, either may be named.
    assert np.allclose(distances[np.arange(len(pool)), made.index], expected.distance, atol=2e-6)


@given(shapes, st.integers(1, 50), st.integers(1, 50))
def test_independent_of_the_block_size(shape, a: int, b: int) -> None:
    pool, harm = vectors(*shape)
    one, other = (nearest_distances(pool, harm, k=1, block=block) for block in (a, b))
    for column in COLUMNS:
        assert np.allclose(getattr(one, column), getattr(other, column), atol=1e-6, equal_nan=True)


@given(shapes, st.randoms(use_true_random=False))
def test_follows_a_permutation(shape, random) -> None:
    pool, harm = vectors(*shape)
    order = list(range(len(pool)))
    random.shuffle(order)
    plain, moved = nearest_distances(pool, harm, k=1, block=7), nearest_distances(pool[order], harm, k=1, block=7)
    for column in COLUMNS:
        assert np.allclose(getattr(plain, column)[order], getattr(moved, column), atol=1e-6, equal_nan=True)


def test_many_neighbours_are_the_same_sum() -> None:
    pool, harm = vectors(20, 3 * MAX_REPEATED_ARGMAX, 5, 1)
    for k in (MAX_REPEATED_ARGMAX, MAX_REPEATED_ARGMAX + 1, 3 * MAX_REPEATED_ARGMAX):
        assert np.allclose(
            nearest_distances(pool, harm, k=k).knn_distance, by_loops(pool, harm, k).knn_distance, atol=2e-6
        )


def test_digits_survive_a_large_common_mean() -> None:
    """99.96 % of published internal vectors is one mean: 1 - cos in float32 has no digit left there."""
    rng = np.random.default_rng(0)
    common = 30 * rng.standard_normal(64) / 8
    pool, harm = ((common + 0.01 * rng.standard_normal((n, 64))).astype(np.float32) for n in (50, 9))
    made, expected = nearest_distances(pool, harm, k=3), by_loops(pool, harm, 3)
    assert expected.distance.max() < 1e-5
    for column in COLUMNS:
        assert np.allclose(getattr(made, column), getattr(expected, column), rtol=1e-3, atol=0), column
    assert (made.index == expected.index).all()


@given(shapes)
def test_centring_is_subtracting_first(shape) -> None:
    pool, harm = vectors(*shape, mean=3.0)
    centre = np.random.default_rng(shape[-1]).standard_normal(shape[2])
    made = nearest_distances(pool, harm, k=1, center=centre)
    expected = by_loops(pool.astype(float) - centre, harm.astype(float) - centre, 1)
    for column in COLUMNS:
        assert np.allclose(getattr(made, column), getattr(expected, column), atol=1e-5, equal_nan=True), column


def test_of_equal_harm_rows_the_first_is_named() -> None:
    pool, harm = vectors(300, 1, 37, 5)
    copies = np.concatenate([harm, -harm, *[harm] * 45])
    made = nearest_distances(pool, copies, k=1, block=11)
    assert set(made.index[cosine_distances(pool, harm)[:, 0] < 0.9].tolist()) == {0}
    assert np.allclose(made.second_distance[made.index == 0], made.distance[made.index == 0], atol=1e-6)


def test_the_very_vector_has_distance_zero_and_its_opposite_two() -> None:
    harm = np.array([[1.0, 2.0, 3.0]], np.float32)
    made = nearest_distances(np.concatenate([harm * 7, -harm, harm]), harm, k=1)
    assert made.distance == pytest.approx([0, 2, 0], abs=1e-6)
    assert np.isnan(made.second_distance).all()
    assert made.distance.min() >= 0
    assert made.distance.max() <= 2


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e18, 1e30])
def test_no_scale_is_lost(scale: float) -> None:
    pool, harm = vectors(30, 4, 6, 2)
    pool = pool / np.linalg.norm(pool, axis=1, keepdims=True)
    made = nearest_distances(pool * np.float32(scale), harm, k=1)
    assert np.allclose(made.distance, by_loops(pool, harm, 1).distance, atol=2e-6)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("side", ["pool", "harm"])
@pytest.mark.parametrize("centered", [False, True])
def test_a_vector_without_direction_never_gets_a_distance(bad: float, side: str, centered: bool) -> None:
    pool, harm = vectors(9, 4, 3, 0)
    (pool if side == "pool" else harm)[2] = bad
    with pytest.raises(UndersongError, match=f"{side} item 2 is zero, NaN or infinite"):
        nearest_distances(pool, harm, k=1, center=np.ones(3) if centered else None, block=2)


def test_what_centring_makes_zero_has_no_distance() -> None:
    pool, harm = vectors(5, 3, 4, 0)
    made = nearest_distances(pool, harm, k=1, center=pool[2].astype(np.float64))
    for column in COLUMNS:
        assert np.isnan(getattr(made, column)).tolist() == [False, False, True, False, False], column
    made = nearest_distances(pool, harm, k=2, center=harm[1].astype(np.float64))  # a harm row: never the nearest
    assert set(made.index.tolist()) <= {0, 2}
    assert np.isfinite(made.distance).all()
    assert np.isnan(nearest_distances(pool, harm[:1], k=1, center=harm[0].astype(np.float64)).distance).all()


def test_vectors_that_cancel_out_have_no_centroid() -> None:
    pool, _ = vectors(4, 1, 3, 0)
    harm = np.array([[1, 0, 0], [-1, 0, 0]], np.float32)
    made = nearest_distances(pool, harm, k=1)
    assert np.isnan(made.centroid_distance).all()
    assert np.isfinite(made.distance).all()


@pytest.mark.parametrize(
    ("n", "m", "d", "k", "message"),
    [
        (0, 2, 3, 1, "pool is empty"),
        (2, 0, 3, 1, "harm set is empty"),
        (2, 2, 4, 1, "3 dim|4 dim"),
        (2, 2, 3, 3, "k = 3"),
    ],
)
def test_sides_that_do_not_fit(n: int, m: int, d: int, k: int, message: str) -> None:
    with pytest.raises(UndersongError, match=message):
        nearest_distances(np.ones((n, d), np.float32), np.ones((m, 3), np.float32), k=k)


def test_memory_beside_the_outputs_does_not_grow_with_the_pool() -> None:
    def extra(n: int) -> int:
        pool, harm = np.ones((n, 16), np.float32), np.eye(16, dtype=np.float32)
        pool[:, 0] += np.arange(n)
        tracemalloc.start()
        made = nearest_distances(pool, harm, k=1, block=64)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - sum(getattr(made, name).nbytes for name in made.__slots__)

    extra(64)  # imports and caches
    assert extra(8192) < extra(1024) + 4096


def test_first_equal_rows() -> None:
    rows = np.array([[1, 2], [3, 4], [1, 2], [3, 5], [3, 4], [1, 2]], np.float32)
    assert first_equal_row(rows).tolist() == [0, 1, 0, 3, 1, 0]


def sparse_sides(n: int, m: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of mostly zeros, none of them all zeros, with copies within and between the sides."""
    rng = np.random.default_rng(seed)
    both = (rng.random((n + m, d)) * (rng.random((n + m, d)) < 0.3)).astype(np.float32)
    both[np.arange(n + m), rng.integers(0, d, n + m)] += 1
    both[rng.integers(0, n + m, (n + m) // 2)] = both[rng.integers(0, n + m)]
    return both[:n], both[n:]


@pytest.mark.parametrize("center", ["none", "mean", "other"])
@given(shapes, st.integers(1, 40), st.integers(1, 50))
def test_sparse_vectors_give_the_distances_of_dense_ones(center: str, shape, k: int, block: int) -> None:
    pool, harm = sparse_sides(*shape)
    k = min(k, len(harm))
    offset = {"none": None, "mean": pool.mean(axis=0, dtype=np.float64), "other": np.full(pool.shape[1], 0.1)}[center]
    made = nearest_distances(csr_array(pool), csr_array(harm), k=k, center=offset, block=block)
    moved = [np.float64(side) - (0 if offset is None else offset) for side in (pool, harm)]
    lengths = [np.linalg.norm(side, axis=1, keepdims=True) for side in moved]
    has_direction = [length[:, 0] > 1e-5 for length in lengths]
    unit = [side / np.where(length > 0, length, 1) for side, length in zip(moved, lengths)]
    distances = np.where(has_direction[1], 1 - unit[0] @ unit[1].T, np.inf)
    ordered = np.sort(distances, axis=1)
    defined = has_direction[0] & np.isfinite(ordered[:, 0])
    assert np.array_equal(np.isnan(made.distance), ~defined)
    rows = np.flatnonzero(defined)
    np.testing.assert_allclose(made.distance[rows], ordered[rows, 0], atol=1e-6)
    np.testing.assert_allclose(distances[rows, made.index[rows]], ordered[rows, 0], atol=1e-6)
    if len(harm) > 1:
        second = np.where(np.isinf(ordered[:, 1]), np.nan, ordered[:, 1])
        np.testing.assert_allclose(made.second_distance[rows], second[rows], atol=1e-6)
    nearest = ordered[:, :k].mean(axis=1)
    np.testing.assert_allclose(made.knn_distance[rows], np.where(np.isinf(nearest), np.nan, nearest)[rows], atol=1e-6)
    centroid = unit[1][has_direction[1]].mean(axis=0)
    if (length := np.linalg.norm(centroid)) > 1e-3:
        expected = 1 - unit[0] @ centroid / length
        np.testing.assert_allclose(made.centroid_distance[rows], expected[rows], atol=1e-6)


@given(shapes, st.integers(1, 50))
def test_sparse_and_dense_code_agree_and_name_the_same_of_equal_items(shape, block: int) -> None:
    pool, harm = sparse_sides(*shape)
    sparse, dense = (nearest_distances(*sides, k=1, block=block) for sides in
                     ((csr_array(pool), csr_array(harm)), (pool, harm)))  # fmt: skip
    for column in COLUMNS:
        np.testing.assert_allclose(getattr(sparse, column), getattr(dense, column), atol=2e-6)
    assert set(sparse.index) <= set(first_equal_row(harm))
    assert np.array_equal(first_equal_row(csr_array(pool)), first_equal_row(pool))
    copies = nearest_distances(csr_array(harm * np.float32(3)), csr_array(harm), k=1, block=block)
    assert not copies.distance.any()  # to the last bit, so that ids break the tie


def test_sparse_vectors_keep_the_errors_of_dense_ones() -> None:
    pool = csr_array(np.float32([[1, 0], [0, 0], [0, 1]]))
    with pytest.raises(UndersongError, match="The vector of pool item 1 is zero"):
        nearest_distances(pool, pool[[0]], k=1, block=1)
    with pytest.raises(UndersongError, match="The vector of harm item 1 is zero"):
        nearest_distances(pool[[0]], pool, k=1)
    with pytest.raises(UndersongError, match="k = 2 neighbors of a harm set of 1"):
        nearest_distances(pool, pool[[0]], k=2)
