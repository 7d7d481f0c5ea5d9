"""Exact cosine distances to a reference set in one blocked pass: nearest, second nearest, mean of the k nearest, and
centroid. Uses a chord formula where float32 cosines lose precision."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from undersong.proximity.distance_columns import (
    NO_DIRECTION,
    NearestDistances,
    check_norms,
    empty_distances,
    largest_values,
    write_distances,
)
from undersong.proximity.sparse_distances import first_equal_sparse_row, sparse_nearest_distances
from undersong.types import UndersongError, Vectors

BLOCK = 1024
# Squared length of the mean unit vector (mean cosine of the set with itself) above which the chord formula is used.
CHORD_THRESHOLD = 0.9


def nearest_distances(
    pool: Vectors, harm: Vectors, *, k: int = 5, center: np.ndarray | None = None, block: int = BLOCK
) -> NearestDistances:
    """Cosine distances of a pool to a harm set.

    Besides its outputs it needs O(block x (m + d)) memory and one copy of the harm set; O(block x m + d) if the vectors
    are sparse. If several nearest rows are equal, the first counts.

    Args:
        pool: Pool vectors, (n, d) float32, dense or sparse.
        harm: Harm vectors, (m, d) float32, dense or sparse.
        k: Number of neighbors of `knn_distance`.
        center: Vector (d,) that is subtracted from both first.
        block: Number of pool rows per block.

    Raises:
        UndersongError: Widths differ, a side is empty, k is not from 1 to m, or a vector is zero, NaN or infinite (it
            should have been quarantined).
    """
    _check_inputs(pool, harm, k)
    if not isinstance(pool, np.ndarray) or not isinstance(harm, np.ndarray):
        return sparse_nearest_distances(pool, harm, k=k, center=center, block=block)
    n, (m, d) = len(pool), harm.shape
    out = empty_distances(n)
    target, equal_rows = _prepare_harm_set(harm, center), first_equal_row(harm)
    # Scratch arrays are allocated once: new pages for every block cost a tenth of the matrix product.
    scratch = np.empty((min(block, n), d), np.float32), np.empty((min(block, n), m), np.float32)
    for start in range(0, n, block):
        rows = slice(start, min(start + block, n))
        vector_scratch, product_scratch = (array[: rows.stop - start] for array in scratch)
        vectors, scale, self_terms, undefined = _prepare_pool(pool[rows], target, center, vector_scratch, start)
        closeness = np.matmul(vectors, target.offset.T, out=product_scratch)
        if target.shifted:
            closeness -= target.half_norms
        index, largest = largest_values(closeness, max(k, min(2, m)))
        centroid = self_terms[:, 0] + scale[:, 0] * (vectors @ target.centroid_vector) + target.centroid_offset
        write_distances(out, rows, equal_rows[index], self_terms - scale * largest, k, centroid, undefined)
    return out


@dataclass(frozen=True, slots=True)
class _PreparedHarmSet:
    """Harm set prepared for products: a pool row q has distance self - q.offset + half, and to the centroid self +
    q.centroid_vector + centroid_offset.

    Unshifted: `offset` holds the unit vectors h with mean c; self = 1, half = 0, centroid_vector = -c / |c| and
    centroid_offset = 0. Shifted: q = p - c and offset = h - c; self = |q|^2 / 2, half = |offset|^2 / 2, centroid_vector
    = c - c / |c|, and centroid_offset is half the square of 1 - |c|. A row without direction has an infinite half, so
    it is never the nearest.
    """

    shifted: bool
    mean: np.ndarray  # c, (d,)
    offset: np.ndarray  # (m, d)
    half_norms: np.ndarray  # (m,)
    centroid_vector: np.ndarray  # (d,)
    centroid_offset: np.float32


def _prepare_harm_set(harm: np.ndarray, center: np.ndarray | None) -> _PreparedHarmSet:
    offset = np.empty(harm.shape, np.float32)
    undefined = _write_unit_rows(harm, center, offset, "harm item")
    offset[undefined] = 0
    mean = offset.sum(axis=0, dtype=np.float64) / max(1, len(harm) - int(undefined.sum()))
    length = float(np.linalg.norm(mean))
    # Vectors that cancel out have no centroid direction.
    direction = mean / length if length > NO_DIRECTION else np.full_like(mean, np.nan)
    if center is None and length**2 < CHORD_THRESHOLD:
        return _PreparedHarmSet(False, mean, offset, np.zeros(len(harm)), -direction.astype(np.float32), np.float32(0))
    centroid_vector, centroid_offset = (mean - direction).astype(np.float32), np.float32((1 - length) ** 2 / 2)
    mean = mean.astype(np.float32)
    offset -= mean
    half_norms = np.where(undefined, np.float32(np.inf), np.vecdot(offset, offset) / 2)
    return _PreparedHarmSet(True, mean, offset, half_norms, centroid_vector, centroid_offset)


def _prepare_pool(
    block: np.ndarray, target: _PreparedHarmSet, center: np.ndarray | None, scratch: np.ndarray, start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vectors to multiply (b, d), scale of their products (b, 1), self terms (b, 1) and undefined rows (b,).

    Unshifted rows are multiplied in place and scaled afterwards, without a copy.
    """
    if not target.shifted:
        norms = _checked_norms(block, "pool item", start)[:, None]
        return block, 1 / norms, np.ones_like(norms), np.zeros(len(block), dtype=bool)
    undefined = _write_unit_rows(block, center, scratch, "pool item", start)
    scratch -= target.mean
    self_terms = np.vecdot(scratch, scratch)[:, None] / 2
    return scratch, np.ones_like(self_terms), self_terms, undefined


def first_equal_row(vectors: Vectors) -> np.ndarray:
    """Index (n,) int64 of the first row that equals each row of `vectors` (n, d) exactly.

    Blocked products round the same row differently at different positions; this settles ties of equal items.
    """
    if not isinstance(vectors, np.ndarray):
        return first_equal_sparse_row(vectors)
    first_rows = np.arange(len(vectors))
    # Equal rows have exactly equal sums. Few other rows do, so only rows that share a sum are compared in full.
    with np.errstate(over="ignore", invalid="ignore"):
        _, group, sizes = np.unique(vectors.sum(axis=1), return_inverse=True, return_counts=True)
    first_by_digest: dict[bytes, int] = {}
    for i in np.flatnonzero(sizes[group] > 1).tolist():
        first_rows[i] = first_by_digest.setdefault(blake2b(vectors[i].tobytes(), digest_size=16).digest(), i)
    return first_rows


def _check_inputs(pool: Vectors, harm: Vectors, k: int) -> None:
    if pool.shape[0] == 0 or harm.shape[0] == 0:
        raise UndersongError(f"The {'pool' if pool.shape[0] == 0 else 'harm set'} is empty; give at least one item.")
    if pool.shape[1] != harm.shape[1]:
        raise UndersongError(
            f"Pool vectors have {pool.shape[1]} dimensions, harm vectors {harm.shape[1]}; embed both with one encoder."
        )
    if not 1 <= k <= harm.shape[0]:
        raise UndersongError(f"k = {k} neighbors of a harm set of {harm.shape[0]}; choose k from 1 to {harm.shape[0]}.")


def _write_unit_rows(
    vectors: np.ndarray, center: np.ndarray | None, out: np.ndarray, item_kind: str, start: int = 0
) -> np.ndarray:
    """Write unit rows of `vectors` (b, d) to `out`; returns which rows had no direction left after centering, (b,)
    bool."""
    norms = _checked_norms(vectors, item_kind, start)
    if center is None:
        np.divide(vectors, norms[:, None], out=out)
        return np.zeros(len(vectors), dtype=bool)
    np.subtract(vectors, center, out=out)
    lengths = _norms(out)
    undefined = lengths <= NO_DIRECTION * norms
    out /= np.where(undefined, np.float32(1), lengths)[:, None]
    return undefined


def _checked_norms(vectors: np.ndarray, item_kind: str, start: int) -> np.ndarray:
    """Lengths (b,) of the rows; a row that is zero, NaN or infinite should have been quarantined and is an error."""
    norms = _norms(vectors)
    check_norms(norms, item_kind, start)
    return norms


def _norms(vectors: np.ndarray) -> np.ndarray:
    """Lengths (b,) float32 of rows (b, d)."""
    with np.errstate(over="ignore"):
        squares = np.vecdot(vectors, vectors)
    if not ((squares > 1e-30) & (squares < 1e30)).all():  # float32 squares overflow long before the values do
        squares = np.vecdot(vectors, vectors, dtype=np.float64)
    return np.sqrt(squares).astype(np.float32)
