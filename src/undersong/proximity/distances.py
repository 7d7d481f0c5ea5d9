"""Exact cosine distances to a reference set: nearest, second, mean of the k nearest, and to its centroid, in one pass.

One blocked matrix product; no index, no n x m matrix, no second copy of the pool.  Where the vectors share a large mean
(99.96 % of Kimi-Audio's internal ones), 1 - cos in float32 has lost the digits that rank a pool; there the distance is
taken as the squared chord of unit vectors, half of it, after the harm set's mean is subtracted from both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from undersong.types import UndersongError

BLOCK = 1024
# Squared length of the mean unit vector (mean cosine of the set with itself) from which the chord is worth its cost.
CLUSTERED = 0.9
# Beyond this many neighbours a partition is cheaper than taking the maximum again and again.
FEW = 32
# A centred vector this small beside the vector it came from is rounding, not a direction.
NO_DIRECTION = 4 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Nearest:
    """Per pool row, all (n,): float32 distances in [0, 2] and the nearest harm row (int64).

    NaN: there is no such distance (`second_distance` to a single item, anything of a vector that centring made zero,
    `centroid_distance` to vectors that cancel out).
    """

    distance: np.ndarray
    index: np.ndarray
    second_distance: np.ndarray
    knn_distance: np.ndarray  # mean over the k nearest
    centroid_distance: np.ndarray  # to the mean of the unit harm vectors


def nearest(
    pool: np.ndarray, harm: np.ndarray, *, k: int = 5, centre: np.ndarray | None = None, block: int = BLOCK
) -> Nearest:
    """Cosine distances of `pool` (n, d) to `harm` (m, d), both float32; `centre` (d,) is subtracted from both first.

    Beside its outputs it holds O(block x (m + d)) and one copy of the harm set.  Of several nearest rows that are equal
    the first counts.  Raises UndersongError when widths differ, a side is empty, k is not within 1..m, or a vector is
    zero, NaN or infinite (it should have been quarantined).
    """
    _check(pool, harm, k)
    n, (m, d) = len(pool), harm.shape
    out = Nearest(*(np.empty(n, dtype) for dtype in (np.float32, np.int64, np.float32, np.float32, np.float32)))
    target, first = _target(harm, centre), first_equal(harm)
    # Scratch is allocated once: fresh pages for every block cost a tenth of the matrix product.
    scratch = np.empty((min(block, n), d), np.float32), np.empty((min(block, n), m), np.float32)
    for start in range(0, n, block):
        rows = slice(start, min(start + block, n))
        moved, products = (array[: rows.stop - start] for array in scratch)
        vectors, scale, own, lost = _prepare(pool[rows], target, centre, moved, start)
        closeness = np.matmul(vectors, target.offset.T, out=products)
        if target.shifted:
            closeness -= target.half
        index, best = _best(closeness, max(k, min(2, m)))
        distances = own - scale * best
        distances[np.isinf(distances)] = np.nan
        out.index[rows] = first[index]
        out.distance[rows] = distances[:, 0]
        out.second_distance[rows] = distances[:, 1] if m > 1 else np.nan
        out.knn_distance[rows] = distances[:, :k].mean(axis=1)
        out.centroid_distance[rows] = own[:, 0] + scale[:, 0] * (vectors @ target.towards) + target.gap
        for column in (out.distance, out.second_distance, out.knn_distance, out.centroid_distance):
            np.clip(column[rows], 0, 2, out=column[rows])
            column[rows][lost] = np.nan
    return out


@dataclass(frozen=True, slots=True)
class _Target:
    """The harm side: a prepared pool row q has distance own - q.offset + half, to the centroid own + q.towards + gap.

    Plain: `offset` are the unit vectors h with mean c, own = 1, half = gap = 0, towards = -c / |c|.
    Shifted: q = p - c, offset = h - c, own = |q|^2 / 2, half = |offset|^2 / 2, towards = c - c / |c|, gap is half the
    square of 1 - |c|.  A row without direction has an infinite half and so is never the nearest.
    """

    shifted: bool
    middle: np.ndarray  # c, (d,)
    offset: np.ndarray  # (m, d)
    half: np.ndarray  # (m,)
    towards: np.ndarray  # (d,)
    gap: np.float32


def _target(harm: np.ndarray, centre: np.ndarray | None) -> _Target:
    offset = np.empty(harm.shape, np.float32)
    lost = _unit(harm, centre, offset, "harm item")
    offset[lost] = 0
    middle = offset.sum(axis=0, dtype=np.float64) / max(1, len(harm) - int(lost.sum()))
    length = float(np.linalg.norm(middle))
    # Vectors that cancel out have no centroid direction.
    direction = middle / length if length > NO_DIRECTION else np.full_like(middle, np.nan)
    if centre is None and length**2 < CLUSTERED:
        return _Target(False, middle, offset, np.zeros(len(harm)), -direction.astype(np.float32), np.float32(0))
    towards, gap = (middle - direction).astype(np.float32), np.float32((1 - length) ** 2 / 2)
    middle = middle.astype(np.float32)
    offset -= middle
    half = np.where(lost, np.float32(np.inf), np.vecdot(offset, offset) / 2)
    return _Target(True, middle, offset, half, towards, gap)


def _prepare(
    block: np.ndarray, target: _Target, centre: np.ndarray | None, scratch: np.ndarray, start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pool rows (b, d) -> vectors to multiply (b, d), the scale of their products (b, 1), own (b, 1), which are lost.

    Plain rows are multiplied as they lie there and scaled afterwards: no copy at all.
    """
    if not target.shifted:
        norms = _lengths(block, "pool item", start)[:, None]
        return block, 1 / norms, np.ones_like(norms), np.zeros(len(block), dtype=bool)
    lost = _unit(block, centre, scratch, "pool item", start)
    scratch -= target.middle
    own = np.vecdot(scratch, scratch)[:, None] / 2
    return scratch, np.ones_like(own), own, lost


def first_equal(vectors: np.ndarray) -> np.ndarray:
    """(n,) int64: for each row of `vectors` (n, d) the first row with the very same numbers.

    Blocked products round the same row differently at different places; ties of equal items are settled with this.
    """
    first = np.arange(len(vectors))
    # Equal rows have equal sums, to the bit; few others have, and only rows that share theirs are looked at whole.
    with np.errstate(over="ignore", invalid="ignore"):
        _, group, sizes = np.unique(vectors.sum(axis=1), return_inverse=True, return_counts=True)
    seen: dict[bytes, int] = {}
    for i in np.flatnonzero(sizes[group] > 1).tolist():
        first[i] = seen.setdefault(blake2b(vectors[i].tobytes(), digest_size=16).digest(), i)
    return first


def _check(pool: np.ndarray, harm: np.ndarray, k: int) -> None:
    if len(pool) == 0 or len(harm) == 0:
        raise UndersongError(f"The {'pool' if len(pool) == 0 else 'harm set'} is empty; give at least one item.")
    if pool.shape[1] != harm.shape[1]:
        raise UndersongError(
            f"Pool vectors have {pool.shape[1]} dimensions, harm vectors {harm.shape[1]}; embed both with one encoder."
        )
    if not 1 <= k <= len(harm):
        raise UndersongError(f"k = {k} neighbours of a harm set of {len(harm)}; choose k from 1 to {len(harm)}.")


def _unit(vectors: np.ndarray, centre: np.ndarray | None, out: np.ndarray, what: str, start: int = 0) -> np.ndarray:
    """Writes unit rows of `vectors` (b, d) to `out`; -> (b,) bool, which rows had no direction left after centring."""
    norms = _lengths(vectors, what, start)
    if centre is None:
        np.divide(vectors, norms[:, None], out=out)
        return np.zeros(len(vectors), dtype=bool)
    np.subtract(vectors, centre, out=out)
    lengths = _norms(out)
    lost = lengths <= NO_DIRECTION * norms
    out /= np.where(lost, np.float32(1), lengths)[:, None]
    return lost


def _lengths(vectors: np.ndarray, what: str, start: int) -> np.ndarray:
    """(b,) lengths.  A row that is zero, NaN or infinite is an error: it must have been quarantined."""
    norms = _norms(vectors)
    sound = np.isfinite(norms) & (norms > 0)
    if not sound.all():
        row = start + int(sound.argmin())
        raise UndersongError(f"The vector of {what} {row} is zero, NaN or infinite; quarantine it first.")
    return norms


def _norms(vectors: np.ndarray) -> np.ndarray:
    """(b, d) -> (b,) float32 lengths."""
    with np.errstate(over="ignore"):
        squares = np.vecdot(vectors, vectors)
    if not ((squares > 1e-30) & (squares < 1e30)).all():  # float32 squares run out of range long before the values do
        squares = np.vecdot(vectors, vectors, dtype=np.float64)
    return np.sqrt(squares).astype(np.float32)


def _best(closeness: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Index (b,) of each row's maximum, the first of equals, and the k largest values (b, k), descending.

    Overwrites `closeness` (b, m).
    """
    width = closeness.shape[1]
    index = closeness.argmax(axis=1)
    if k > FEW:
        largest = np.partition(closeness, width - k, axis=1)[:, -k:]
        return index, -np.sort(-largest, axis=1)
    flat, row_starts = closeness.reshape(-1), np.arange(len(closeness)) * width
    best = np.empty((len(closeness), k), np.float32)
    place = index + row_starts
    for column in range(k):
        if column:
            place = closeness.argmax(axis=1) + row_starts
        best[:, column] = flat.take(place)
        flat[place] = -np.inf
    return index, best
