"""Linear CKA of two encoders over the same items, with a debiased estimate and bootstrap values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError

BLOCK_ROWS = 4096


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
    x: np.ndarray, y: np.ndarray, block: int = BLOCK_ROWS, rows: tuple[np.ndarray, np.ndarray] | None = None
) -> Cka:
    """Linear CKA of `x` (n, d) and `y` (n, e), which hold the same items in the same order.

    Memory is O((d + e)^2 + block x (d + e) + n). Sums are float64, and means are removed before products, so that a
    large common mean costs no digits.

    Args:
        x: Vectors of the first view.
        y: Vectors of the second view.
        block: Rows per block.
        rows: Two arrays (n,) of row numbers, if `x` and `y` hold more rows than are compared; neither is copied.

    Raises:
        UndersongError: The numbers of rows differ, there are fewer than 2, or a side does not vary.
    """
    counts = (len(x), len(y)) if rows is None else (len(rows[0]), len(rows[1]))
    if x.ndim != 2 or y.ndim != 2 or counts[0] != counts[1] or counts[0] < 2:
        raise UndersongError(f"CKA needs two encoders' vectors of the same items, not {x.shape} and {y.shape}.")
    x_items, y_items = (None, None) if rows is None else rows
    sides = [(x, x_items), (y, y_items)]
    n, means = counts[0], [_column_means(vectors, items, block) for vectors, items in sides]
    xy, xx, yy = (np.zeros((len(means[a]), len(means[b]))) for a, b in ((0, 1), (0, 0), (1, 1)))
    for a, b in _blocks(sides, means, n, block):
        xy += a.T @ b
        xx += a.T @ a
        yy += b.T @ b
    xy, xx, yy = xy / n, xx / n, yy / n
    moments = np.array([np.vdot(m, m) for m in (xy, xx, yy)])
    if not np.isfinite(moments).all() or min(moments[1:]) <= 0:
        raise UndersongError("CKA needs finite vectors that differ from each other; one encoder gave only equal ones.")
    contributions, lengths, start = np.zeros((3, n)), np.empty((2, n)), 0
    for a, b in _blocks(sides, means, n, block):
        part = slice(start, start + len(a))
        for row, (left, matrix, right) in enumerate(((a, xy, b), (a, xx, a), (b, yy, b))):
            if moments[row] > 0:
                contributions[row, part] = np.vecdot(left @ matrix, right) / np.sqrt(moments[row])
        lengths[:, part] = np.vecdot(a, a), np.vecdot(b, b)
        start += len(a)
    value = moments[0] / np.sqrt(moments[1] * moments[2])
    return Cka(float(min(1.0, value)), contributions, _unbiased(moments, lengths))


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


def _column_means(vectors: np.ndarray, items: np.ndarray | None, block: int) -> np.ndarray:
    n, total = len(vectors) if items is None else len(items), np.zeros(vectors.shape[1])
    for start in range(0, n, block):
        total += _take(vectors, items, slice(start, start + block)).sum(axis=0, dtype=np.float64)
    return total / n


def _blocks(
    sides: list[tuple[np.ndarray, np.ndarray | None]], means: list[np.ndarray], n: int, block: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, n, block):
        a, b = (_take(vectors, items, slice(start, start + block)).astype(np.float64) for vectors, items in sides)
        yield a - means[0], b - means[1]


def _take(vectors: np.ndarray, items: np.ndarray | None, rows: slice) -> np.ndarray:
    return vectors[rows] if items is None else vectors[items[rows]]
