"""Mean squares, and what a combination of them says of a variance.  Knows numbers; does not know what they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CHI_SQUARED_DRAWS = 20_000  # of each chi-squared; an end of an interval then moves by some 1 % with the seed


@dataclass(frozen=True, slots=True)
class MeanSquare:
    """`value` over its expectation is about a chi-squared over its degrees of freedom: `df` by count; `effective` by
    what the data say of the variance of `value` itself (Satterthwaite 1946), never more than `df`."""

    value: float
    df: int
    effective: float


WeightedSquares = Sequence[tuple[float, MeanSquare]]  # weights and independent mean squares


def mean_square(values: np.ndarray) -> MeanSquare:
    """Of independent `values` (n,) around their mean, n at least 2."""
    return MeanSquare(float(values.var(ddof=1)), len(values) - 1, len(values) - 1)


def pooled_mean_square(groups: Sequence[np.ndarray]) -> MeanSquare | None:
    """Within `groups` of replicates, around their own means; None where no group has two.

    Runs near a rate of 0 or 1 vary less than others, and the pooled square is then less sure than its count says.  Two
    estimates of the variance of the total are made, and the larger is taken.  f s^4 / (f + 2) is without bias for
    sigma^4 where replicates are normal, and 2 is what the total's own variance adds to its square; the spread of the
    groups' squares needs no normal replicates, but several groups.
    """
    replicated = [values for values in groups if len(values) > 1]
    if not replicated:
        return None
    df = np.array([len(values) - 1 for values in replicated])
    squares = np.array([values.var(ddof=1) for values in replicated])
    count, total = int(df.sum()), float(df @ squares)
    if total == 0:
        return MeanSquare(0.0, count, count)
    effective = total**2 / float((df**2 * squares**2 / (df + 2)).sum()) - 2
    if len(df) > 1:
        variance_of_squares = float((df**2 * (squares - total / count) ** 2).sum()) * len(df) / (len(df) - 1)
        effective = min(effective, 2 * total**2 / variance_of_squares) if variance_of_squares > 0 else effective
    return MeanSquare(total / count, count, min(count, effective))


def crossed_mean_squares(table: np.ndarray) -> tuple[MeanSquare, MeanSquare, MeanSquare]:
    """Of a `table` (rows, columns), both at least 2: of row means, of column means, and of what these leave."""
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    residuals = table - rows[:, None] - columns + table.mean()
    df = (len(rows) - 1) * (len(columns) - 1)
    return mean_square(rows), mean_square(columns), MeanSquare(float((residuals**2).sum()) / df, df, df)


def combine_mean_squares(weighted_squares: WeightedSquares, level: float, seed: int) -> tuple[float, float, float]:
    """The weighted sum of mean squares with its generalised confidence interval (Weerahandi 1993).

    Nothing is cut at 0 here: a difference of squares may be negative.
    """
    rng, draws = np.random.default_rng(seed), np.zeros(CHI_SQUARED_DRAWS)
    for weight, square in weighted_squares:
        draws += weight * square.value * square.effective / rng.chisquare(square.effective, CHI_SQUARED_DRAWS)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return sum(weight * square.value for weight, square in weighted_squares), float(low), float(high)
