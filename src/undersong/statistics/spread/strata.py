"""The components of a crossed and nested design, each from its own mean square.  Knows cells of JSRs; no prompts.

Each estimate is a mean square less what is nested in it, weighted so that the rest is expected to be 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from undersong.statistics.spread.mean_squares import Parts, combine, crossed, mean_square, pooled

LEAST = 4  # degrees of freedom: a deviation estimated with 4 is within a factor of two of the truth 9 times in 10
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

Cells = Mapping[tuple[Hashable, Hashable], list[np.ndarray]]  # (base, selection) -> JSRs by seed of each draw


@dataclass(frozen=True, slots=True)
class Component:
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


def of_cells(cells: Cells, level: float, seed: int) -> tuple[list[Component], int]:
    """base, selection and base x selection, from one mean a cell; and how many selections are not in every base.

    Those are left out here, because what differs between bases would then be what they were trained on.
    """
    bases, selections = ({key[i]: None for key in cells} for i in (0, 1))
    shared = [s for s in selections if all((b, s) in cells for b in bases)]
    whole, shape = [cells[b, s] for b in bases for s in shared], (len(bases), len(shared))
    # Unweighted: each draw counts once, however many seeds it has.
    table = np.array([np.mean([draw.mean() for draw in draws]) for draws in whole]).reshape(shape)
    left, noise, names = len(selections) - len(shared), _noise(whole), ("base", "selection", "base x selection")
    if min(shape) > 1:
        rows, columns, both = crossed(table)
        squares = ([(1.0, rows), (-1 / shape[1], both)], [(1.0, columns), (-1 / shape[0], both)])
        made = [component(name, n, parts, level, seed) for name, n, parts in zip(names, shape, squares)]
        return [*made, component(names[2], table.size, noise and [(1.0, both), *noise], level, seed)], left
    made = [
        component(name, n, noise and [(1.0, mean_square(table.ravel())), *noise], level, seed)
        if n == table.size > 1
        else Component(name, n, 0, note=NOTE_ONE.format(name=name) if n == 1 else NOTE_CROSSED)
        for name, n in zip(names, shape)
    ]
    return [*made, Component(names[2], table.size, 0, note=NOTE_CROSSED)], left


def of_draws(cells: Cells, level: float, seed: int) -> Component:
    """draw, from cells with several: their own seeds are taken off, as those of other selections may be noisier."""
    several = [draws for draws in cells.values() if len(draws) > 1]
    groups = sum(map(len, several))
    between = pooled([np.array([draw.mean() for draw in draws]) for draws in several])
    if between is None:
        return Component("draw", 0, 0, note=NOTE_DRAW)
    within = pooled([draw for draws in several for draw in draws])
    if within is None:
        return Component("draw", groups, between.df, note=NOTE_PAIRED.format(points=100 * sqrt(between.value)))
    seeds = sum((len(draws) - 1) * float(np.mean([1 / len(draw) for draw in draws])) for draws in several)
    return component("draw", groups, [(1.0, between), (-seeds / between.df, within)], level, seed)


def of_seeds(cells: Cells, level: float, seed: int) -> Component:
    """seed, from all draws that have several."""
    several = [draw for draws in cells.values() for draw in draws if len(draw) > 1]
    within = pooled(several)
    if within is None:
        return Component("seed", 0, 0, note=NOTE_SEED)
    return component("seed", sum(map(len, several)), [(1.0, within)], level, seed)


def component(name: str, groups: int, parts: Parts | None, level: float, seed: int) -> Component:
    """From weighted mean squares, the component's own first; None where what is nested in it is not known."""
    if parts is None:
        return Component(name, groups, 0, note=NOTE_NOISE)
    df = parts[0][1].df
    if df < LEAST:
        return Component(name, groups, df, note=_few(df))
    if abs(parts[0][1].value) < 1e-24:  # shares are ratios of counts: less is rounding
        return Component(name, groups, df, 0.0, note=NOTE_EQUAL)
    sd, low, high = (sqrt(max(0.0, variance)) for variance in combine(parts, level, seed))
    return Component(name, groups, df, sd, low, high, note="" if sd > 0 else NOTE_ZERO)


def _few(df: int) -> str:
    degrees = "1 degree of freedom is" if df == 1 else f"{df} degrees of freedom are"
    return NOTE_FEW.format(degrees=degrees, least=LEAST)


def _noise(cells: Sequence[Sequence[np.ndarray]]) -> Parts | None:
    """What run noise adds to the variance of cell means, to be taken off; None where it is unknown.

    The spread of draws has that of their seeds in it.  A cell with one draw (closest and distant samples do not depend
    on it) needs replicates, of cells of its kind: their noise need not be that of random draws.
    """
    one, several = [c[0] for c in cells if len(c) == 1], [c for c in cells if len(c) > 1]
    found = []
    for weight, square in (
        (sum(1 / len(draw) for draw in one), pooled(one)),
        (sum(1 / len(draws) for draws in several), pooled([np.array([d.mean() for d in draws]) for draws in several])),
    ):
        if weight and square is None:
            return None
        if square is not None:
            found.append((-weight / len(cells), square))
    return found
