"""Exact cosine distances to a reference set: nearest, second, mean of the k nearest, and to its centroid, in one pass.

One blocked matrix product; no index, no n x m matrix, no second copy of the pool.  Distances are squared chords of
unit vectors, taken *after the harm centroid is subtracted from both*: 1 - cos loses its digits where all vectors share
one large mean (Kimi-Audio's internal vectors are 99.96 % common mean), and the chord does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError

BLOCK = 512
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
    target = _target(harm, centre)
    # Scratch is allocated once: fresh pages for every block cost a tenth of the matrix product.
    scratch = np.empty((min(block, n), d), np.float32), np.empty((min(block, n), m), np.float32)
    for start in range(0, n, block):
        rows = slice(start, min(start + block, n))
        vectors, products = (array[: rows.stop - start] for array in scratch)
        lost = _unit(pool[rows], centre, vectors, "pool item", start)
        vectors -= target.middle
        own = np.vecdot(vectors, vectors) / 2
        # closeness = own - distance, so the largest is the nearest
        closeness = np.matmul(vectors, target.offset.T, out=products)
        closeness -= target.half
        index, best = _best(closeness, max(k, min(2, m)))
        distances = own[:, None] - best
        distances[np.isinf(distances)] = np.nan
        out.index[rows] = target.first[index]
        out.distance[rows] = distances[:, 0]
        out.second_distance[rows] = distances[:, 1] if m > 1 else np.nan
        out.knn_distance[rows] = distances[:, :k].mean(axis=1)
        out.centroid_distance[rows] = own + vectors @ target.towards + target.gap
        for column in (out.distance, out.second_distance, out.knn_distance, out.centroid_distance):
            np.clip(column[rows], 0, 2, out=column[rows])
            column[rows][lost] = np.nan
    return out


@dataclass(frozen=True, slots=True)
class _Target:
    """The harm side: `middle` (d,) is the mean c of its unit vectors, `offset` (m, d) what is left of them.

    `half` (m,) = |offset|^2 / 2, infinite for a row without direction, which so is never the nearest; `first` (m,) the
    first row equal to each.  `towards` (d,) and `gap` give the distance to the centroid's direction: with q = p - c and
    e = c - c / |c|, |p - c / |c||^2 / 2 = |q|^2 / 2 + q.e + |e|^2 / 2.
    """

    middle: np.ndarray
    offset: np.ndarray
    half: np.ndarray
    first: np.ndarray
    towards: np.ndarray
    gap: np.float32


def _target(harm: np.ndarray, centre: np.ndarray | None) -> _Target:
    offset = np.empty(harm.shape, np.float32)
    lost = _unit(harm, centre, offset, "harm item")
    offset[lost] = 0
    middle = offset.sum(axis=0, dtype=np.float64) / max(1, len(harm) - int(lost.sum()))
    length = float(np.linalg.norm(middle))
    # Vectors that cancel out have no centroid direction.
    shrink = 1 - 1 / length if length > NO_DIRECTION else np.nan
    middle = middle.astype(np.float32)
    offset -= middle
    towards, gap = middle * np.float32(shrink), np.float32((shrink * length) ** 2 / 2)
    half = np.where(lost, np.float32(np.inf), np.vecdot(offset, offset) / 2)
    return _Target(middle, offset, half, first_equal(harm), towards, gap)


def first_equal(vectors: np.ndarray) -> np.ndarray:
    """(n,) int64: for each row of `vectors` (n, d) the first row with the very same numbers.

    Blocked products round the same row differently at different places; ties of equal items are settled with this.
    """
    seen: dict[int, int] = {}
    first = np.arange(len(vectors))
    for i, row in enumerate(vectors):
        candidate = seen.setdefault(hash(row.tobytes()), i)
        if candidate != i and np.array_equal(vectors[candidate], row):
            first[i] = candidate
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
    """Writes unit rows of `vectors` (b, d) to `out`; -> (b,) bool, which rows had no direction left after centring.

    A row that is zero, NaN or infinite to begin with is an error: it must have been quarantined.
    """
    norms = _norms(vectors)
    sound = np.isfinite(norms) & (norms > 0)
    if not sound.all():
        row = start + int(sound.argmin())
        raise UndersongError(f"The vector of {what} {row} is zero, NaN or infinite; quarantine it first.")
    if centre is None:
        np.divide(vectors, norms[:, None], out=out)
        return np.zeros(len(vectors), dtype=bool)
    np.subtract(vectors, centre, out=out)
    lengths = _norms(out)
    lost = lengths <= NO_DIRECTION * norms
    out /= np.where(lost, np.float32(1), lengths)[:, None]
    return lost


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
