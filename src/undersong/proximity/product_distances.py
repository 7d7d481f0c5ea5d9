"""Distances by scalar product, for vectors whose length counts: minus the product of a pool row with the harm rows."""

from __future__ import annotations

import numpy as np

from undersong.proximity.distance_columns import NearestDistances, empty_distances
from undersong.types import UndersongError, Vectors

BLOCK = 1024
NO_NEAREST = -1  # index where all harm rows are equally near


def product_distances(
    pool: Vectors, harm: Vectors, *, k: int = 5, center: np.ndarray | None = None
) -> NearestDistances:
    """Negative scalar products of a pool with a harm set: the largest product is the closest.

    They are in the units of the vectors and have no bounds. `centroid_distance` is minus the product with the harm
    set's mean. `index` is -1 where all harm rows have the same product, because none of several is the nearest.

    Args:
        pool: Pool vectors, (n, d), dense.
        harm: Harm vectors, (m, d), dense.
        k: Number of neighbors of `knn_distance`.
        center: Vector (d,) that is subtracted from the pool. The harm rows are directions and are kept.

    Raises:
        UndersongError: Widths differ, a side is empty, a value is not finite, or k is not from 1 to m.
    """
    if not isinstance(pool, np.ndarray) or not isinstance(harm, np.ndarray):
        raise UndersongError("Scalar products need dense vectors; give an axis that runs the model.")
    if not len(pool) or not len(harm):
        raise UndersongError(f"The {'harm set' if len(pool) else 'pool'} is empty; give at least one item.")
    if pool.shape[1] != harm.shape[1]:
        raise UndersongError(
            f"Pool vectors have {pool.shape[1]} dimensions, harm vectors {harm.shape[1]}; embed both with one encoder."
        )
    if not 1 <= k <= len(harm):
        raise UndersongError(f"k = {k} neighbors of a harm set of {len(harm)}; choose k from 1 to {len(harm)}.")
    out, targets = empty_distances(len(pool)), harm.astype(np.float64)
    mean = targets.mean(axis=0)
    for start in range(0, len(pool), BLOCK):
        rows = slice(start, start + BLOCK)
        vectors = pool[rows].astype(np.float64) - (0.0 if center is None else center)
        products = vectors @ targets.T
        if not np.isfinite(products).all():
            raise UndersongError("A scalar product is NaN or infinite; quarantine the vector first.")
        ordered = -np.sort(-products, axis=1)[:, : max(k, 2)]
        all_equal = (np.ptp(products, axis=1) == 0) & (len(harm) > 1)
        out.index[rows] = np.where(all_equal, NO_NEAREST, products.argmax(axis=1))
        out.distance[rows] = -ordered[:, 0]
        out.second_distance[rows] = -ordered[:, 1] if len(harm) > 1 else np.nan
        out.knn_distance[rows] = -ordered[:, :k].mean(axis=1)
        out.centroid_distance[rows] = -(vectors @ mean)
    return out
