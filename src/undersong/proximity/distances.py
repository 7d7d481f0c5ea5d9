"""Exact cosine distances to a reference set in one blocked pass: nearest, second nearest, mean of the k nearest, and
centroid. Uses a chord formula where float32 cosines lose precision."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from undersong.types import UndersongError

BLOCK = 1024
# Squared length of the mean unit vector (mean cosine of the set with itself) above which the chord formula is used.
CHORD_THRESHOLD = 0.9
# For more neighbors than this, a partition is cheaper than repeated maxima.
MAX_REPEATED_ARGMAX = 32
# A centered vector smaller than this fraction of the original is rounding and has no direction.
NO_DIRECTION = 4 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class NearestDistances:
    """Distances of each pool row, all (n,): float32 in [0, 2]; `index` is the nearest harm row (int64).

    NaN means that a distance is undefined: `second_distance` to a single item, any distance of a vector that centering
    made zero, and `centroid_distance` to vectors that cancel out.
    """

    distance: np.ndarray
    index: np.ndarray
    second_distance: np.ndarray
    knn_distance: np.ndarray  # mean over the k nearest
    centroid_distance: np.ndarray  # to the mean of the unit harm vectors


def nearest_distances(
    pool: np.ndarray, harm: np.ndarray, *, k: int = 5, center: np.ndarray | None = None, block: int = BLOCK
) -> NearestDistances:
    """Cosine distances of a pool to a harm set.

    Besides its outputs it needs O(block x (m + d)) memory and one copy of the harm set. If several nearest rows are
    equal, the first counts.

    Args:
        pool: Pool vectors, (n, d) float32.
        harm: Harm vectors, (m, d) float32.
        k: Number of neighbors of `knn_distance`.
        center: Vector (d,) that is subtracted from both first.
        block: Number of pool rows per block.

    Raises:
        UndersongError: Widths differ, a side is empty, k is not from 1 to m, or a vector is zero, NaN or infinite (it
            should have been quarantined).
    """
    _check_inputs(pool, harm, k)
    n, (m, d) = len(pool), harm.shape
    out = NearestDistances(
        *(np.empty(n, dtype) for dtype in (np.float32, np.int64, np.float32, np.float32, np.float32))
    )
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
        index, largest = _largest(closeness, max(k, min(2, m)))
        distances = self_terms - scale * largest
        distances[np.isinf(distances)] = np.nan
        out.index[rows] = equal_rows[index]
        out.distance[rows] = distances[:, 0]
        out.second_distance[rows] = distances[:, 1] if m > 1 else np.nan
        out.knn_distance[rows] = distances[:, :k].mean(axis=1)
        out.centroid_distance[rows] = (
            self_terms[:, 0] + scale[:, 0] * (vectors @ target.centroid_vector) + target.centroid_offset
        )
        for column in (out.distance, out.second_distance, out.knn_distance, out.centroid_distance):
            np.clip(column[rows], 0, 2, out=column[rows])
            column[rows][undefined] = np.nan
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


def first_equal_row(vectors: np.ndarray) -> np.ndarray:
    """Index (n,) int64 of the first row that equals each row of `vectors` (n, d) exactly.

    Blocked products round the same row differently at different positions; this settles ties of equal items.
    """
    first_rows = np.arange(len(vectors))
    # Equal rows have exactly equal sums. Few other rows do, so only rows that share a sum are compared in full.
    with np.errstate(over="ignore", invalid="ignore"):
        _, group, sizes = np.unique(vectors.sum(axis=1), return_inverse=True, return_counts=True)
    first_by_digest: dict[bytes, int] = {}
    for i in np.flatnonzero(sizes[group] > 1).tolist():
        first_rows[i] = first_by_digest.setdefault(blake2b(vectors[i].tobytes(), digest_size=16).digest(), i)
    return first_rows


def _check_inputs(pool: np.ndarray, harm: np.ndarray, k: int) -> None:
    if len(pool) == 0 or len(harm) == 0:
        raise UndersongError(f"The {'pool' if len(pool) == 0 else 'harm set'} is empty; give at least one item.")
    if pool.shape[1] != harm.shape[1]:
        raise UndersongError(
            f"Pool vectors have {pool.shape[1]} dimensions, harm vectors {harm.shape[1]}; embed both with one encoder."
        )
    if not 1 <= k <= len(harm):
        raise UndersongError(f"k = {k} neighbors of a harm set of {len(harm)}; choose k from 1 to {len(harm)}.")


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
    is_usable = np.isfinite(norms) & (norms > 0)
    if not is_usable.all():
        row = start + int(is_usable.argmin())
        raise UndersongError(f"The vector of {item_kind} {row} is zero, NaN or infinite; quarantine it first.")
    return norms


def _norms(vectors: np.ndarray) -> np.ndarray:
    """Lengths (b,) float32 of rows (b, d)."""
    with np.errstate(over="ignore"):
        squares = np.vecdot(vectors, vectors)
    if not ((squares > 1e-30) & (squares < 1e30)).all():  # float32 squares overflow long before the values do
        squares = np.vecdot(vectors, vectors, dtype=np.float64)
    return np.sqrt(squares).astype(np.float32)


def _largest(closeness: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Index (b,) of each row's maximum (the first of equals), and its k largest values (b, k), descending.

    Overwrites `closeness` (b, m).
    """
    width = closeness.shape[1]
    index = closeness.argmax(axis=1)
    if k > MAX_REPEATED_ARGMAX:
        largest = np.partition(closeness, width - k, axis=1)[:, -k:]
        return index, -np.sort(-largest, axis=1)
    flat, row_starts = closeness.reshape(-1), np.arange(len(closeness)) * width
    top_values = np.empty((len(closeness), k), np.float32)
    flat_index = index + row_starts
    for column in range(k):
        if column:
            flat_index = closeness.argmax(axis=1) + row_starts
        top_values[:, column] = flat.take(flat_index)
        flat[flat_index] = -np.inf
    return index, top_values
