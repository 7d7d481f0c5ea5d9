"""Exact cosine distances of sparse vectors, in float64. Centered distances come from products of the uncentered rows,
because a centered row has no zeros left."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.distance_columns import (
    NO_DIRECTION,
    NearestDistances,
    check_norms,
    empty_distances,
    largest_values,
    write_distances,
)
from undersong.types import Vectors

if TYPE_CHECKING:
    from scipy.sparse import csr_array

ROUNDING = 1e-12  # distances below this are the rounding of equal directions


def sparse_nearest_distances(
    pool: Vectors, harm: Vectors, *, k: int, center: np.ndarray | None, block: int
) -> NearestDistances:
    """Cosine distances as `nearest_distances` gives them, with O(block x m + d) memory.

    For a center c, (p - c).(h - c) = p.h - p.c - h.c + c.c. Float64 leaves enough digits after this subtraction, where
    the dense code needs its chord formula.

    Args:
        pool: Pool vectors, (n, d).
        harm: Harm vectors, (m, d).
        k: Number of neighbors of `knn_distance`.
        center: Vector (d,) that is subtracted from both first; None: nothing is.
        block: Number of pool rows per block.
    """
    n, (m, d) = pool.shape[0], harm.shape
    offset = np.zeros(d) if center is None else np.asarray(center, np.float64)
    offset_square = float(offset @ offset)
    target = _float64_rows(harm)
    harm_products, harm_lengths, harm_undefined = _centered_lengths(target, offset, offset_square, "harm item", 0)
    equal_rows, columns = first_equal_sparse_row(target), target.T.tocsr()
    weights = np.where(harm_undefined, 0, 1 / harm_lengths) / max(1, m - int(harm_undefined.sum()))
    centroid = columns @ weights - offset * weights.sum()  # mean of the centered unit vectors
    length = float(np.linalg.norm(centroid))
    direction = centroid / length if length > NO_DIRECTION else np.full(d, np.nan)
    direction_product = float(direction @ offset)
    out = empty_distances(n)
    for start in range(0, n, block):
        rows = slice(start, min(start + block, n))
        vectors = _float64_rows(pool[rows])
        products, lengths, undefined = _centered_lengths(vectors, offset, offset_square, "pool item", start)
        cosines = (vectors @ columns).toarray()
        if center is not None:
            cosines += offset_square - products[:, None] - harm_products
        cosines /= lengths[:, None] * harm_lengths
        cosines[:, harm_undefined] = -np.inf
        index, largest = largest_values(cosines, max(k, min(2, m)))
        centroid_cosines = (vectors @ direction - direction_product) / lengths
        distances = 1 - largest
        distances[np.abs(distances) < ROUNDING] = 0  # so that copies of harm items are ties, which ids break
        write_distances(out, rows, equal_rows[index], distances, k, 1 - centroid_cosines, undefined)
    return out


def _float64_rows(vectors: Vectors) -> csr_array:
    from scipy.sparse import csr_array

    rows = csr_array(vectors, dtype=np.float64, copy=True)
    rows.sum_duplicates()  # and sorted, so that equal rows have equal products
    return rows


def _centered_lengths(
    vectors: csr_array, offset: np.ndarray, offset_square: float, item_kind: str, start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Products with the offset, lengths after it is subtracted (1 where undefined), and rows without direction, (b,)
    each."""
    squares = np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel()
    check_norms(np.sqrt(squares), item_kind, start)
    products = vectors @ offset
    lengths = np.sqrt(np.maximum(squares - 2 * products + offset_square, 0))
    undefined = lengths <= NO_DIRECTION * np.sqrt(squares)
    return products, np.where(undefined, 1, lengths), undefined


def first_equal_sparse_row(vectors: csr_array) -> np.ndarray:
    """Index (n,) int64 of the first row that equals each row of `vectors` (n, d) exactly; indices must be sorted."""
    first_rows = np.arange(vectors.shape[0])
    first_by_digest: dict[bytes, int] = {}
    for row in range(vectors.shape[0]):
        part = slice(vectors.indptr[row], vectors.indptr[row + 1])
        content = vectors.indices[part].astype(np.int64).tobytes() + vectors.data[part].tobytes()
        first_rows[row] = first_by_digest.setdefault(blake2b(content, digest_size=16).digest(), row)
    return first_rows
