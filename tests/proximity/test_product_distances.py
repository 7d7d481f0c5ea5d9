"""Scalar products as distances: unbounded, the largest is the closest, and no nearest item where all are alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.proximity.product_distances import NO_NEAREST, product_distances
from undersong.proximity.selection import select_by_kind
from undersong.proximity.table import proximity_table, proximity_tables, ranking_metadata, ranking_scores
from undersong.types import Embeddings, UndersongError


def embeddings(vectors: np.ndarray, prefix: str) -> Embeddings:
    ids = tuple(f"{prefix}{i:03d}" for i in range(len(vectors)))
    return Embeddings(ids, vectors.astype(np.float32), np.zeros(len(vectors), np.int64))


@given(st.integers(1, 2000), st.integers(1, 9), st.integers(1, 6), st.booleans(), st.integers(0, 5))
def test_it_is_the_product_by_the_formula(n: int, m: int, d: int, centered: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool, harm = (rng.normal(0, 30, (rows, d)).astype(np.float32) for rows in (n, m))
    center = rng.normal(0, 1, d) if centered else None
    k = min(3, m)
    made = product_distances(pool, harm, k=k, center=center)
    products = (pool.astype(float) - (0 if center is None else center)) @ harm.T.astype(float)
    ordered = np.sort(-products, axis=1)
    np.testing.assert_allclose(made.distance, ordered[:, 0], rtol=1e-5)
    np.testing.assert_allclose(made.knn_distance, ordered[:, :k].mean(1), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(made.centroid_distance, -products.mean(1), rtol=1e-4, atol=1e-3)
    assert np.isnan(made.second_distance).all() == (m == 1)
    np.testing.assert_array_equal(made.index, products.argmax(1))


def test_a_table_ranks_by_length_too_and_says_its_metric() -> None:
    pool = embeddings(np.array([[1.0, 0], [-5, 1], [40, 2], [3, 9]]), "p")
    table = proximity_table("a", "h", pool, embeddings(np.array([[1.0, 0]]), "h"), score="centroid", metric="product")
    np.testing.assert_allclose(ranking_scores(table), [-1, 5, -40, -3])
    assert table.column("rank").to_pylist() == [3, 4, 1, 2]
    assert ranking_metadata(table)["metric"] == "product"
    assert select_by_kind(table, "closest", 2).ids == ("p002", "p003")
    both = proximity_tables("a", pool, {"h": embeddings(np.array([[1.0, 0]]), "h")}, score="centroid", metric="product")
    assert both.column("rank").to_pylist() == [3, 4, 1, 2]
    assert "metric" not in ranking_metadata(proximity_table("a", "h", pool, embeddings(np.eye(2), "h")))


def test_no_item_is_named_where_all_are_equally_near() -> None:
    pool, harm = embeddings(np.array([[1.0, 1], [-2, 1]]), "p"), np.array([[1.0, 0], [1, 0]])
    assert set(product_distances(pool.vectors, harm.astype(np.float32), k=1).index) == {NO_NEAREST}
    table = proximity_table("a", "h", pool, embeddings(harm, "h"), score="centroid", metric="product")
    assert table.column("nearest_id").to_pylist() == [None, None]
    single = proximity_table("a", "h", pool, embeddings(harm[:1], "h"), score="centroid", metric="product")
    assert single.column("nearest_id").to_pylist() == ["h000", "h000"]


def test_what_does_not_fit_is_refused() -> None:
    one, two = np.ones((1, 3), np.float32), np.ones((2, 2), np.float32)
    with pytest.raises(UndersongError, match="have 3 dimensions, harm vectors 2"):
        product_distances(one, two, k=1)
    with pytest.raises(UndersongError, match="k = 3 neighbors of a harm set of 2"):
        product_distances(two, two, k=3)
    with pytest.raises(UndersongError, match="The pool is empty"):
        product_distances(two[:0], two, k=1)
    with pytest.raises(UndersongError, match="NaN or infinite"):
        product_distances(two * np.nan, two, k=1)
    pool = embeddings(two, "p")
    with pytest.raises(UndersongError, match="no metric 'euclid'; use cosine or product"):
        proximity_table("a", "h", pool, pool, metric="euclid")
