"""Mean squares of a crossed and nested design, and the variance component that each yields, with generalized confidence
intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

CHI_SQUARED_DRAWS = 20_000  # draws of each chi-squared; an interval's ends then vary by about 1 % with the seed


@dataclass(frozen=True, slots=True)
class MeanSquare:
    """A mean square, which over its expectation is about a chi-squared over its degrees of freedom.

    Attributes:
        value: The mean square.
        df: Degrees of freedom by count.
        effective: Degrees of freedom by the estimated variance of `value` (Satterthwaite 1946), never more than `df`.
    """

    value: float
    df: int
    effective: float


WeightedSquares = Sequence[tuple[float, MeanSquare]]  # weights and independent mean squares


def mean_square(values: np.ndarray) -> MeanSquare:
    """Mean square of independent `values` (n,) around their mean, for n of at least 2."""
    return MeanSquare(float(values.var(ddof=1)), len(values) - 1, len(values) - 1)


def pooled_mean_square(groups: Sequence[np.ndarray]) -> MeanSquare | None:
    """Pooled mean square of replicates around their group means; None if no group has two replicates.

    Runs near a rate of 0 or 1 vary less than others, and the pooled square is then less certain than its count says. We
    estimate the variance of the total in two ways and take the larger. f s^4 / (f + 2) is unbiased for sigma^4 if
    replicates are normal, and 2 is what the total's own variance adds to its square. The spread of the groups' squares
    needs no normal replicates, but several groups.
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
    """Mean squares of row means, of column means and of the residuals of `table` (rows, columns), both at least 2."""
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    residuals = table - rows[:, None] - columns + table.mean()
    df = (len(rows) - 1) * (len(columns) - 1)
    return mean_square(rows), mean_square(columns), MeanSquare(float((residuals**2).sum()) / df, df, df)


def combine_mean_squares(weighted_squares: WeightedSquares, level: float, seed: int) -> tuple[float, float, float]:
    """Weighted sum of mean squares with its generalized confidence interval (Weerahandi 1993).

    Nothing is cut at 0 here: a difference of mean squares may be negative. Returns (value, low, high).
    """
    rng, draws = np.random.default_rng(seed), np.zeros(CHI_SQUARED_DRAWS)
    for weight, square in weighted_squares:
        draws += weight * square.value * square.effective / rng.chisquare(square.effective, CHI_SQUARED_DRAWS)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return sum(weight * square.value for weight, square in weighted_squares), float(low), float(high)


MIN_DF = 4  # degrees of freedom; with 4, a standard deviation is within a factor of two of the truth 9 times in 10
NOTE_FEW = "{degrees} too few for a number; it takes {least}."
NOTE_ONE = "All runs have the same {name}, so its spread is unknown."
NOTE_CROSSED = "It takes several bases that were trained on the same several selections."
NOTE_NOISE = "It cannot be separated from run noise; train the selections that have one draw with several seeds."
NOTE_DRAW = "No selection was trained on several draws."
NOTE_PAIRED = (
    "Each draw has one seed, so draw and seed cannot be separated; together they vary by {points:.1f} points (SD)."
)
NOTE_SEED = "No draw was trained with several seeds."
NOTE_ZERO = "The spread is no more than what is nested in it makes, so the estimate is 0."
NOTE_EQUAL = "All values agree exactly: the spread is too small to be seen in so few prompts, and has no interval."

CellRates = Mapping[tuple[Hashable, Hashable], list[np.ndarray]]  # (base, selection) -> JSRs by seed of each draw


@dataclass(frozen=True, slots=True)
class VarianceComponent:
    """Standard deviation that one source adds to a run's JSR, with its interval.

    Attributes:
        name: The source, such as "base" or "seed".
        groups: Number of values that were compared.
        df: Degrees of freedom.
        sd: Standard deviation as a share (0.05 is five points); None if it cannot be estimated.
        low: Lower end of its interval.
        high: Upper end of its interval.
        share: Share of the variance of all components that could be estimated.
        note: Reason why there is no estimate, else empty.
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
    """Components base, selection and base x selection, from one mean per cell.

    Selections that were not trained on every base are left out: otherwise a difference between bases could come from
    what they were trained on.

    Returns:
        The three components, and the number of selections left out.
    """
    bases, selections = ({key[i]: None for key in cells} for i in (0, 1))
    shared_selections = [s for s in selections if all((b, s) in cells for b in bases)]
    complete_cells, shape = (
        [cells[b, s] for b in bases for s in shared_selections],
        (len(bases), len(shared_selections)),
    )
    # Unweighted means: each draw counts once, however many seeds it has.
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
    """Component of the draw, from cells with several draws.

    The noise of their own seeds is subtracted, because runs of other selections may be noisier.
    """
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
    """Component of the training seed, from all draws with several seeds."""
    replicated_draws = [draw for draws in cells.values() for draw in draws if len(draw) > 1]
    within = pooled_mean_square(replicated_draws)
    if within is None:
        return VarianceComponent("seed", 0, 0, note=NOTE_SEED)
    return estimate_component("seed", sum(map(len, replicated_draws)), [(1.0, within)], level, seed)


def estimate_component(
    name: str, groups: int, weighted_squares: WeightedSquares | None, level: float, seed: int
) -> VarianceComponent:
    """Estimate a variance component from weighted mean squares.

    Args:
        name: Name of the component.
        groups: Number of values that were compared.
        weighted_squares: The component's own mean square first, then those to subtract; None if the nested noise is
            unknown.
        level: Confidence level.
        seed: Seed of the interval's chi-squared draws.
    """
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
    """Terms that subtract run noise from the variance of cell means; None if the noise is unknown.

    The spread of draws includes that of their seeds. A cell with one draw (closest and distant selections do not depend
    on the draw) needs replicates of cells of its kind, because their noise may differ from that of random draws.
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
