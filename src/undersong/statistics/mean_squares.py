"""Mean squares of a crossed and nested design, and the variance component that each yields, with generalized
confidence intervals.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

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


MIN_DF = 4  # degrees of freedom: a deviation estimated with 4 is within a factor of two of the truth 9 times in 10
NOTE_FEW = "{degrees} too few for a number; it takes {least}."
NOTE_ONE = "All runs have the same {name}, so its spread is unknown."
NOTE_CROSSED = "It takes several bases that were trained on the same several selections."
NOTE_NOISE = "It cannot be told from run noise; train the selections that have one draw with several seeds."
NOTE_DRAW = "No selection was trained on several draws."
NOTE_PAIRED = (
    "Each draw has one seed, so draw and seed cannot be told apart; together they vary by {points:.1f} points (SD)."
)
NOTE_SEED = "No draw was trained with several seeds."
NOTE_ZERO = "The spread is no more than what is nested in it makes, so the estimate is 0."
NOTE_EQUAL = "All values agree exactly: the spread is too small to be seen in so few prompts, and has no interval."

CellRates = Mapping[tuple[Hashable, Hashable], list[np.ndarray]]  # (base, selection) -> JSRs by seed of each draw


@dataclass(frozen=True, slots=True)
class VarianceComponent:
    """What one source adds to a run's JSR: standard deviation `sd` (a share: .05 is five points) with its interval.

    `groups` values were compared, with `df` degrees of freedom.  `share`: of the variance of all components that have a
    number.  None where it cannot be estimated; `note` then says why (else empty).
    """

    name: str
    groups: int
    df: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    share: float | None = None
    note: str = ""


def base_selection_components(cells: CellRates, level: float, seed: int) -> tuple[list[VarianceComponent], int]:
    """base, selection and base x selection, from one mean a cell; and how many selections are not in every base.

    Those are left out here, because what differs between bases would then be what they were trained on.
    """
    bases, selections = ({key[i]: None for key in cells} for i in (0, 1))
    shared_selections = [s for s in selections if all((b, s) in cells for b in bases)]
    complete_cells, shape = (
        [cells[b, s] for b in bases for s in shared_selections],
        (len(bases), len(shared_selections)),
    )
    # Unweighted: each draw counts once, however many seeds it has.
    table = np.array([np.mean([draw.mean() for draw in draws]) for draws in complete_cells]).reshape(shape)
    left_out, noise, names = (
        len(selections) - len(shared_selections),
        _run_noise_terms(complete_cells),
        ("base", "selection", "base x selection"),
    )
    if min(shape) > 1:
        rows, columns, interaction = crossed_mean_squares(table)
        squares = ([(1.0, rows), (-1 / shape[1], interaction)], [(1.0, columns), (-1 / shape[0], interaction)])
        components = [
            estimate_component(name, n, weighted_squares, level, seed)
            for name, n, weighted_squares in zip(names, shape, squares)
        ]
        return [
            *components,
            estimate_component(names[2], table.size, noise and [(1.0, interaction), *noise], level, seed),
        ], left_out
    components = [
        estimate_component(name, n, noise and [(1.0, mean_square(table.ravel())), *noise], level, seed)
        if n == table.size > 1
        else VarianceComponent(name, n, 0, note=NOTE_ONE.format(name=name) if n == 1 else NOTE_CROSSED)
        for name, n in zip(names, shape)
    ]
    return [*components, VarianceComponent(names[2], table.size, 0, note=NOTE_CROSSED)], left_out


def draw_component(cells: CellRates, level: float, seed: int) -> VarianceComponent:
    """draw, from cells with several: their own seeds are taken off, as those of other selections may be noisier."""
    multi_draw_cells = [draws for draws in cells.values() if len(draws) > 1]
    groups = sum(map(len, multi_draw_cells))
    between = pooled_mean_square([np.array([draw.mean() for draw in draws]) for draws in multi_draw_cells])
    if between is None:
        return VarianceComponent("draw", 0, 0, note=NOTE_DRAW)
    within = pooled_mean_square([draw for draws in multi_draw_cells for draw in draws])
    if within is None:
        return VarianceComponent("draw", groups, between.df, note=NOTE_PAIRED.format(points=100 * sqrt(between.value)))
    seeds = sum((len(draws) - 1) * float(np.mean([1 / len(draw) for draw in draws])) for draws in multi_draw_cells)
    return estimate_component("draw", groups, [(1.0, between), (-seeds / between.df, within)], level, seed)


def seed_component(cells: CellRates, level: float, seed: int) -> VarianceComponent:
    """seed, from all draws that have several."""
    replicated_draws = [draw for draws in cells.values() for draw in draws if len(draw) > 1]
    within = pooled_mean_square(replicated_draws)
    if within is None:
        return VarianceComponent("seed", 0, 0, note=NOTE_SEED)
    return estimate_component("seed", sum(map(len, replicated_draws)), [(1.0, within)], level, seed)


def estimate_component(
    name: str, groups: int, weighted_squares: WeightedSquares | None, level: float, seed: int
) -> VarianceComponent:
    """From weighted mean squares, the component's own first; None where what is nested in it is not known."""
    if weighted_squares is None:
        return VarianceComponent(name, groups, 0, note=NOTE_NOISE)
    df = weighted_squares[0][1].df
    if df < MIN_DF:
        return VarianceComponent(name, groups, df, note=_too_few_note(df))
    if abs(weighted_squares[0][1].value) < 1e-24:  # shares are ratios of counts: less is rounding
        return VarianceComponent(name, groups, df, 0.0, note=NOTE_EQUAL)
    sd, low, high = (sqrt(max(0.0, variance)) for variance in combine_mean_squares(weighted_squares, level, seed))
    return VarianceComponent(name, groups, df, sd, low, high, note="" if sd > 0 else NOTE_ZERO)


def _too_few_note(df: int) -> str:
    degrees = "1 degree of freedom is" if df == 1 else f"{df} degrees of freedom are"
    return NOTE_FEW.format(degrees=degrees, least=MIN_DF)


def _run_noise_terms(cells: Sequence[Sequence[np.ndarray]]) -> WeightedSquares | None:
    """What run noise adds to the variance of cell means, to be taken off; None where it is unknown.

    The spread of draws has that of their seeds in it.  A cell with one draw (closest and distant samples do not depend
    on it) needs replicates, of cells of its kind: their noise need not be that of random draws.
    """
    single_draws, multi_draw_cells = [c[0] for c in cells if len(c) == 1], [c for c in cells if len(c) > 1]
    terms = []
    for weight, square in (
        (sum(1 / len(draw) for draw in single_draws), pooled_mean_square(single_draws)),
        (
            sum(1 / len(draws) for draws in multi_draw_cells),
            pooled_mean_square([np.array([d.mean() for d in draws]) for draws in multi_draw_cells]),
        ),
    ):
        if weight and square is None:
            return None
        if square is not None:
            terms.append((-weight / len(cells), square))
    return terms
