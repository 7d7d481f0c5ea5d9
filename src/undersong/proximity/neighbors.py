"""Neighbors within one set: the nearest of the other items, and of items of another cluster."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from undersong.encoders.sparse_vectors import row_products, unit_rows
from undersong.types import Vectors

BLOCK = 1024


def distances_to_others(vectors: Vectors, clusters: Sequence[Hashable]) -> np.ndarray:
    """Cosine distance (n,) of each item to the nearest item of another cluster; NaN if there is only one cluster.

    Args:
        vectors: Vectors (n, d) without zero rows.
        clusters: Cluster of each item.
    """
    codes = np.unique([str(name) for name in clusters], return_inverse=True)[1].reshape(-1)
    rows = unit_rows(vectors)
    out = np.full(len(codes), np.nan)
    for start in range(0, len(codes), BLOCK):
        part = slice(start, start + BLOCK)
        cosines = np.where(codes[part, None] == codes, -np.inf, row_products(rows[part], rows))
        nearest = cosines.max(axis=1)
        out[part] = np.where(np.isinf(nearest), np.nan, np.maximum(0, 1 - nearest))
    return out


def nearest_neighbors(vectors: Vectors, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and cosine distances, both (n, k), of the nearest other items, nearest first.

    Args:
        vectors: Vectors (n, d) without zero rows, more than k.
        k: Number of neighbors.
    """
    rows = unit_rows(vectors)
    n = rows.shape[0]
    index, distance = np.empty((n, k), np.int64), np.empty((n, k))
    for start in range(0, n, BLOCK):
        cosines = np.asarray(row_products(rows[start : start + BLOCK], rows))
        own = np.arange(len(cosines))
        cosines[own, start + own] = -np.inf
        chosen = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(cosines, chosen, axis=1)
        order = np.lexsort((chosen, -values), axis=1)
        index[start : start + BLOCK] = np.take_along_axis(chosen, order, axis=1)
        distance[start : start + BLOCK] = np.maximum(0, 1 - np.take_along_axis(values, order, axis=1))
    return index, distance
