"""Linear CKA of two encoders over the same items, with a debiased estimate and bootstrap values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError, Vectors

BLOCK_ROWS = 4096
MAX_PRODUCT_WIDTH = 8192  # dimensions of sparse vectors up to which their (d, d) products are made
SPARSE_ROWS = 1024  # rows per block of sparse vectors, which are wide once they are dense


@dataclass(frozen=True, slots=True)
class Cka:
    """Linear CKA of two encoders over the same items.

    Attributes:
        value: The biased estimate, from 0 to 1.
        contributions: Each item's part of |Y'X| / n, |X'X| / n and |Y'Y| / n, which are the means over items: the
            item's own product (as y x') along the direction of the sum, (3, n).
        unbiased: Unbiased estimates of the squares of these three, (3,); NaN with fewer than 4 items.
    """

    value: float
    contributions: np.ndarray
    unbiased: np.ndarray

    @property
    def debiased(self) -> float | None:
        """CKA from the unbiased estimates; it may be below 0. None if a side has no similarity beyond its bias."""
        value = _debiased(self.unbiased, self.contributions.mean(axis=1) ** 2)
        return None if np.isnan(value) else value

    def bootstrap_value(self, weights: np.ndarray) -> float:
        """CKA of a bootstrap draw, to first order; `weights` (n,) say how often each item is in the draw.

        Copies of an item are identical, so the CKA of the resampled data lies above the sample's, by much if items are
        few. Taking the draw's product matrices along those of the whole sample avoids this shift and keeps the
        derivative (infinitesimal jackknife, Efron 1982). NaN if a side of the draw does not vary.
        """
        cross, first, second = self.contributions @ (weights / weights.sum())
        return float(min(1.0, max(0.0, cross) ** 2 / (first * second))) if min(first, second) > 0 else float("nan")

    def bootstrap_debiased(self, weights: np.ndarray) -> float:
        """Value of `debiased` in a bootstrap draw: the unbiased squares move as the biased ones do."""
        means = self.contributions.mean(axis=1)
        shift = 2 * means * (self.contributions @ (weights / weights.sum()) - means)
        return _debiased(self.unbiased + shift, means**2)


def linear_cka(
    x: Vectors, y: Vectors, block: int = BLOCK_ROWS, rows: tuple[np.ndarray, np.ndarray] | None = None
) -> Cka:
    """Linear CKA of `x` (n, d) and `y` (n, e), which hold the same items in the same order.

    Memory is O((d + e)^2 + block x (d + e) + n). Sums are float64, and means are removed before products, so that a
    large common mean costs no digits. For sparse vectors with more dimensions than items, or than
    `MAX_PRODUCT_WIDTH`, blocks of the Gram matrices give the same numbers in O(d + e + n) memory.

    Args:
        x: Vectors of the first view.
        y: Vectors of the second view.
        block: Rows per block.
        rows: Two arrays (n,) of row numbers, if `x` and `y` hold more rows than are compared; neither is copied.

    Raises:
        UndersongError: The numbers of rows differ, there are fewer than 2, or a side does not vary.
    """
    counts = (x.shape[0], y.shape[0]) if rows is None else (len(rows[0]), len(rows[1]))
    if x.ndim != 2 or y.ndim != 2 or counts[0] != counts[1] or counts[0] < 2:
        raise UndersongError(f"CKA needs two encoders' vectors of the same items, not {x.shape} and {y.shape}.")
    x_items, y_items = (None, None) if rows is None else rows
    sides = [(x, x_items), (y, y_items)]
    if not (isinstance(x, np.ndarray) and isinstance(y, np.ndarray)):
        block = min(block, SPARSE_ROWS)
    n, means = counts[0], [_column_means(vectors, items, block) for vectors, items in sides]
    if any(_is_wide(vectors, n) for vectors in (x, y)):
        moments, contributions, lengths = _gram_moments(sides, means, n, block)
        _check_moments(moments)
        return Cka(_biased(moments), contributions, _unbiased(moments, lengths))
    xy, xx, yy = (np.zeros((len(means[a]), len(means[b]))) for a, b in ((0, 1), (0, 0), (1, 1)))
    for a, b in _blocks(sides, means, n, block):
        xy += a.T @ b
        xx += a.T @ a
        yy += b.T @ b
    xy, xx, yy = xy / n, xx / n, yy / n
    moments = np.array([np.vdot(m, m) for m in (xy, xx, yy)])
    _check_moments(moments)
    contributions, lengths, start = np.zeros((3, n)), np.empty((2, n)), 0
    for a, b in _blocks(sides, means, n, block):
        part = slice(start, start + len(a))
        for row, (left, matrix, right) in enumerate(((a, xy, b), (a, xx, a), (b, yy, b))):
            if moments[row] > 0:
                contributions[row, part] = np.vecdot(left @ matrix, right) / np.sqrt(moments[row])
        lengths[:, part] = np.vecdot(a, a), np.vecdot(b, b)
        start += len(a)
    return Cka(_biased(moments), contributions, _unbiased(moments, lengths))


def _is_wide(vectors: Vectors, n: int) -> bool:
    return not isinstance(vectors, np.ndarray) and vectors.shape[1] > min(n, MAX_PRODUCT_WIDTH)


def _gram_moments(
    sides: list[tuple[Vectors, np.ndarray | None]], means: list[np.ndarray], n: int, block: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moments (3,), contributions (3, n) and squared lengths (2, n) from square blocks of the centered Gram matrices.

    |Y'X|^2 is the sum over all pairs of items of the product of their entries in the two Gram matrices.
    """
    # Products with the mean, so that no centered row is made: (x - c).(y - c) = x.y - x.c - y.c + c.c
    mean_products = [
        np.concatenate([_rows64(vectors, items, part) @ mean for part in _parts(n, block)])
        for (vectors, items), mean in zip(sides, means)
    ]
    squares = [float(mean @ mean) for mean in means]
    sums, lengths = np.zeros((3, n)), np.empty((2, n))
    for rows in _parts(n, block):
        left = [_rows64(vectors, items, rows) for vectors, items in sides]
        for columns in _parts(n, block):
            grams = []
            for side, (vectors, items) in enumerate(sides):
                products = left[side] @ _rows64(vectors, items, columns).T
                products = products if isinstance(products, np.ndarray) else products.toarray()
                products += squares[side] - mean_products[side][rows, None] - mean_products[side][columns]
                grams.append(products)
                if columns == rows:
                    lengths[side, rows] = products.diagonal()
            for row, (a, b) in enumerate(((0, 1), (0, 0), (1, 1))):
                sums[row, rows] += np.vecdot(grams[a], grams[b])
    moments = sums.sum(axis=1) / n**2
    scale = np.sqrt(np.where(moments > 0, moments, np.inf))  # of no similarity at all there are no parts
    return moments, sums / n / scale[:, None], lengths


def _parts(n: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, n)) for start in range(0, n, block)]


def _rows64(vectors: Vectors, items: np.ndarray | None, rows: slice) -> Vectors:
    return (vectors[rows] if items is None else vectors[items[rows]]).astype(np.float64)


def _check_moments(moments: np.ndarray) -> None:
    if not np.isfinite(moments).all() or min(moments[1:]) <= 0:
        raise UndersongError("CKA needs finite vectors that differ from each other; one encoder gave only equal ones.")


def _biased(moments: np.ndarray) -> float:
    return float(min(1.0, moments[0] / np.sqrt(moments[1] * moments[2])))


def _unbiased(moments: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Unbiased HSIC in feature space, (3,), from squared `lengths` (2, n) of the centered rows."""
    n = lengths.shape[1]
    if n < 4:
        return np.full(3, np.nan)
    pairs = [(lengths[a], lengths[b]) for a, b in ((0, 1), (0, 0), (1, 1))]
    diagonal_terms = np.array([a @ b for a, b in pairs])
    sums = np.array([a.sum() * b.sum() for a, b in pairs])
    return (moments - diagonal_terms / (n * (n - 2)) + sums / (n**2 * (n - 1) * (n - 2))) * n / (n - 3)


def _debiased(unbiased: np.ndarray, biased: np.ndarray) -> float:
    """Debiased CKA; NaN if a side's unbiased square is only rounding next to its biased one."""
    if not (unbiased[1:] > 1e-9 * biased[1:]).all():
        return float("nan")
    return float(min(1.0, unbiased[0] / np.sqrt(unbiased[1] * unbiased[2])))


def _column_means(vectors: Vectors, items: np.ndarray | None, block: int) -> np.ndarray:
    n, total = vectors.shape[0] if items is None else len(items), np.zeros(vectors.shape[1])
    for part in _parts(n, block):
        if isinstance(vectors, np.ndarray):
            total += _take(vectors, items, part).sum(axis=0, dtype=np.float64)
        else:
            total += _rows64(vectors, items, part).sum(axis=0)
    return total / n


def _blocks(
    sides: list[tuple[Vectors, np.ndarray | None]], means: list[np.ndarray], n: int, block: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, n, block):
        a, b = (_take(vectors, items, slice(start, start + block)).astype(np.float64) for vectors, items in sides)
        yield a - means[0], b - means[1]


def _take(vectors: Vectors, items: np.ndarray | None, rows: slice) -> np.ndarray:
    taken = vectors[rows] if items is None else vectors[items[rows]]
    return taken if isinstance(taken, np.ndarray) else taken.toarray()
