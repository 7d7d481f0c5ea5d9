"""Vectors drawn in two dimensions: principal components, or UMAP where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from undersong.encoders.sparse_vectors import is_sparse, unit_rows
from undersong.types import Vectors

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

PCA, UMAP = "PCA", "UMAP"
MAX_UMAP_ROWS = 20_000  # UMAP takes minutes for more
MAX_DIRECTIONS = 50  # of sparse rows


def project_to_plane(vectors: Vectors, seed: int = 0, method: str | None = None) -> tuple[np.ndarray, str]:
    """Coordinates (n, 2) of vectors (n, d) in a plane, by direction alone, and the name of the method.

    Principal components keep as much of the spread as a flat picture can. UMAP keeps neighbors together instead.

    Args:
        vectors: Dense or sparse vectors without zero rows.
        seed: Seed of the start.
        method: PCA or UMAP; None: UMAP if it is installed and there are few rows.
    """
    rows = unit_rows(vectors)
    n = rows.shape[0]
    if method is None:
        method = UMAP if find_spec("umap") is not None and 15 < n <= MAX_UMAP_ROWS else PCA
    if method == UMAP:
        from umap import UMAP as Umap

        # One job, because a seed leaves no choice, and UMAP warns of it otherwise.
        umap = Umap(metric="cosine", random_state=seed, n_jobs=1)
        return np.asarray(umap.fit_transform(_dense_rows(rows, seed)), np.float64), UMAP
    return _principal_components(rows, seed), PCA


def _dense_rows(rows: Vectors, seed: int) -> np.ndarray:
    """Rows (n, d) as they are; of sparse rows, which UMAP does not take, the coordinates on their main directions."""
    from scipy.sparse.linalg import svds

    if not is_sparse(rows):
        return rows
    if min(rows.shape) <= MAX_DIRECTIONS:
        return rows.toarray()
    start = np.random.default_rng(seed).normal(size=min(rows.shape))
    left, values, _ = svds(rows, k=MAX_DIRECTIONS, v0=start)
    return (left * values).astype(np.float32)


def _principal_components(rows: Vectors, seed: int) -> np.ndarray:
    """Scores (n, 2) on the first two principal components. Sparse rows are centered without making them dense."""
    from scipy.sparse.linalg import svds

    n, d = rows.shape
    if min(n, d) <= 3:
        dense = rows.toarray() if is_sparse(rows) else rows
        left, values, right = np.linalg.svd(dense - dense.mean(axis=0), full_matrices=False)
    else:
        start = np.random.default_rng(seed).normal(size=min(n, d))
        left, values, right = svds(_centered(rows), k=2, v0=start)
    order = np.argsort(-values)[:2]
    scores, directions = left[:, order] * values[order], right[order]
    # The sign of a component is arbitrary; its largest weight is positive.
    largest = np.abs(directions).argmax(axis=1)
    scores = scores * np.sign(directions[np.arange(len(order)), largest])
    return np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))


def _centered(rows: Vectors) -> LinearOperator:
    """Rows minus their mean, as products only."""
    from scipy.sparse.linalg import LinearOperator

    n, d = rows.shape
    mean = np.asarray(rows.mean(axis=0)).reshape(-1)

    def forward(x: np.ndarray) -> np.ndarray:
        return rows @ x.ravel() - mean @ x.ravel()

    def backward(y: np.ndarray) -> np.ndarray:
        return rows.T @ y.ravel() - mean * y.sum()

    return LinearOperator((n, d), matvec=forward, rmatvec=backward, dtype=np.float64)
