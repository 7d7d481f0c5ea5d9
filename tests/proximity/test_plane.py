"""Maps in two dimensions, and neighbors within a set."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from scipy.sparse import csr_array

from undersong.proximity import plane
from undersong.proximity.neighbors import distances_to_others, nearest_neighbors
from undersong.proximity.plane import PCA, UMAP, project_to_plane


def reference_components(vectors: np.ndarray) -> np.ndarray:
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    return left[:, :2] * values[:2]


@pytest.mark.parametrize("shape", [(50, 12), (8, 30), (5, 2), (2, 6), (1, 4)])
def test_dense_and_sparse_vectors_have_the_same_principal_components(shape: tuple[int, int]) -> None:
    vectors = np.random.default_rng(0).normal(size=shape)
    vectors[:, : shape[1] // 2] += 1
    expected = reference_components(vectors)
    for given in (vectors, csr_array(vectors)):
        points, method = project_to_plane(given, method=PCA)
        assert method == PCA
        assert points.shape == (shape[0], 2)
        width = expected.shape[1]
        np.testing.assert_allclose(np.abs(points[:, :width]), np.abs(expected), atol=1e-6)
        np.testing.assert_array_equal(points, project_to_plane(given, method=PCA)[0])


def test_umap_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("umap")
    module.__spec__ = types.SimpleNamespace(name="umap")  # type: ignore[assignment]

    class Umap:
        def __init__(self, **settings: object) -> None:
            assert settings == {"metric": "cosine", "random_state": 3, "n_jobs": 1}

        def fit_transform(self, rows: np.ndarray) -> np.ndarray:
            assert type(rows) is np.ndarray  # umap-learn 0.5.12 fails on a csr_array
            return rows[:, :2].astype(np.float32)

    module.UMAP = Umap  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    vectors = np.eye(20)
    assert project_to_plane(vectors, 3)[1] == UMAP
    assert project_to_plane(vectors[:5], 3)[1] == PCA  # too few for its neighborhoods
    for words in (20, 90):  # of more, the main directions are kept
        points, method = project_to_plane(csr_array(np.random.default_rng(2).random((80, words)) > 0.7), 3)
        assert (points.shape, method) == ((80, 2), UMAP)


def test_directions_of_sparse_rows_keep_who_is_near_whom() -> None:
    """What UMAP gets of word counts: two groups with words of their own stay apart."""
    generator = np.random.default_rng(0)
    groups = [np.hstack([generator.random((60, 200)) > 0.9, np.zeros((60, 200))])[:, :: 1 - 2 * i] for i in (0, 1)]
    rows = plane._dense_rows(csr_array(np.vstack(groups).astype(np.float64)), 0)
    assert rows.shape == (120, plane.MAX_DIRECTIONS)
    between = rows[:60] @ rows[60:].T
    within = rows[:60] @ rows[:60].T
    assert np.abs(between).max() < 1e-3 < within[np.triu_indices(60, 1)].mean()


def test_neighbors_are_the_nearest_other_items() -> None:
    vectors = np.random.default_rng(1).normal(size=(60, 5))
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = 1 - rows @ rows.T
    np.fill_diagonal(distances, np.inf)
    for given in (vectors, csr_array(vectors)):
        index, distance = nearest_neighbors(given, 4)
        np.testing.assert_array_equal(index, np.argsort(distances, axis=1)[:, :4])
        np.testing.assert_allclose(distance, np.sort(distances, axis=1)[:, :4], atol=1e-12)


def test_a_set_against_itself_leaves_out_the_own_cluster() -> None:
    vectors = np.array([[1.0, 0], [1, 0.01], [0, 1], [0.01, 1]])
    np.testing.assert_allclose(distances_to_others(vectors, ["a", "a", "b", "b"]), 0.99, atol=0.02)
    assert distances_to_others(vectors, "abcd").max() < 0.001
    assert np.isnan(distances_to_others(vectors, "aaaa")).all()
