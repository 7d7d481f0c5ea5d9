"""Columns of distances to a harm set, filled a block of pool rows at a time, from dense or sparse vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError

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


def empty_distances(n: int) -> NearestDistances:
    """Distances of n rows, to be filled."""
    return NearestDistances(
        *(np.empty(n, dtype) for dtype in (np.float32, np.int64, np.float32, np.float32, np.float32))
    )


def write_distances(
    out: NearestDistances,
    rows: slice,
    index: np.ndarray,
    distances: np.ndarray,
    k: int,
    centroid: np.ndarray,
    undefined: np.ndarray,
) -> None:
    """Write the distances of a block of rows.

    Args:
        out: Gets the distances.
        rows: The block.
        index: Nearest harm row, (b,).
        distances: The smallest distances, ascending, (b, at least k, and 2 if there are two harm rows); overwritten.
        k: Number of neighbors of `knn_distance`.
        centroid: Distances to the centroid, (b,).
        undefined: Rows without direction, (b,) bool.
    """
    distances[np.isinf(distances)] = np.nan
    out.index[rows] = index
    out.distance[rows] = distances[:, 0]
    out.second_distance[rows] = distances[:, 1] if distances.shape[1] > 1 else np.nan
    out.knn_distance[rows] = distances[:, :k].mean(axis=1)
    out.centroid_distance[rows] = centroid
    for column in (out.distance, out.second_distance, out.knn_distance, out.centroid_distance):
        np.clip(column[rows], 0, 2, out=column[rows])
        column[rows][undefined] = np.nan


def check_norms(norms: np.ndarray, item_kind: str, start: int = 0) -> None:
    """Check the lengths (b,) of the rows from `start` on.

    Raises:
        UndersongError: A row is zero, NaN or infinite; it should have been quarantined.
    """
    is_usable = np.isfinite(norms) & (norms > 0)
    if not is_usable.all():
        row = start + int(is_usable.argmin())
        raise UndersongError(f"The vector of {item_kind} {row} is zero, NaN or infinite; quarantine it first.")


def largest_values(closeness: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Index (b,) of each row's maximum (the first of equals), and its k largest values (b, k), descending.

    Overwrites `closeness` (b, m).
    """
    width = closeness.shape[1]
    index = closeness.argmax(axis=1)
    if k > MAX_REPEATED_ARGMAX:
        largest = np.partition(closeness, width - k, axis=1)[:, -k:]
        return index, -np.sort(-largest, axis=1)
    flat, row_starts = closeness.reshape(-1), np.arange(len(closeness)) * width
    top_values = np.empty((len(closeness), k), closeness.dtype)
    flat_index = index + row_starts
    for column in range(k):
        if column:
            flat_index = closeness.argmax(axis=1) + row_starts
        top_values[:, column] = flat.take(flat_index)
        flat[flat_index] = -np.inf
    return index, top_values
