"""Where the spread of JSR comes from: base, selection, draw, seed, prompts.  Knows labelled runs; not their training.

    JSR of a run = mean + base + selection + base x selection + draw + seed + prompts

Bases and selections are crossed (each base is trained on each selection); draws, told apart by the hash of their ids,
are nested in a base and selection, and seeds in a draw.  It is a mixed model with all effects random: selections stand
for those that could have been made.  It is fitted by mean squares of unweighted means (Thomas and Hultquist 1978),
which in a balanced design without a negative estimate are REML's estimates (tests).  Intervals are generalised
confidence intervals (Weerahandi 1993): they need no large sample, as the Wald intervals of mixed-model software do.

Prompts.  All runs are asked the same prompts, so how hard these are moves all runs together: it is in every mean and
cancels in every difference.  Its spread is what the outcomes of runs that share nothing else have in common.  What a
prompt does to one run alone is already in the spread of runs: to take a binomial variance off the seed's would take
away what is not in it, to add one would count the run's own part twice.

Draw, seed and prompt are those of the bases and selections at hand: run noise grows with JSR, and others have another.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from undersong.statistics.clusters import label_codes
from undersong.statistics.mean_squares import (
    VarianceComponent,
    base_selection_components,
    draw_component,
    estimate_component,
    seed_component,
)
from undersong.statistics.spread import asked
from undersong.types import UndersongError

NOTE_RATES = "One rate a run tells nothing of prompts; give every prompt's outcome, (runs, prompts)."
NOTE_UNCROSSED = "{left} selections were not trained on every base; they count for draw and seed only."
NOTE_EDGE = (
    "The mean rate is {mean:.1%}: so near 0 or 1 runs are skewed, and an interval of spread said to be of 95 % holds "
    "in 92 of 100 cases at 14 %, in 84 at 4 %."
)
EDGE_RATE = 0.1  # simulated coverage of a nominal 95 % (seed, 6 draws of 3 seeds): .94 at 29 %, .92 at 14 %, .84 at 4 %


@dataclass(frozen=True, slots=True)
class RunLabels:
    """What a run was; `draw` is the hash of the ids it trained on, so that equal draws are one."""

    base: Hashable
    selection: Hashable
    draw: Hashable
    seed: Hashable


@dataclass(frozen=True, slots=True)
class VarianceComponents:
    """base, selection, base x selection, draw, seed, prompt, in this order.  `sd`: of all that have a number, together.

    `seed_by_prompts`: the part of the seed's sd that is there because prompts are few; more prompts make it smaller,
    and what else there is only more seeds can average out.  None without outcomes or replicates.
    """

    runs: int
    parts: tuple[VarianceComponent, ...]
    sd: float | None
    seed_by_prompts: float | None
    note: str = ""


def variance_components(
    labels: Sequence[RunLabels],
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> VarianceComponents:
    """Split the variance of JSR over runs with `labels` (runs,).

    `values`: JSRs (runs,), or outcomes (runs, prompts) of the same prompts in the same order, with the prompts'
    `clusters` (None: each its own).  `seed` is of the intervals' draws.  Raises UndersongError where shapes differ, a
    value is not finite, a run stands twice, or two selections of a base have the same ids.
    """
    outcomes = np.asarray(values, dtype=np.float64)
    if outcomes.ndim not in (1, 2) or len(outcomes) != len(labels) or not outcomes.size:
        raise UndersongError(f"Values of shape {outcomes.shape} do not fit {len(labels)} runs; give one row a run.")
    if not np.isfinite(outcomes).all():
        raise UndersongError("The result of a run is not a number; measure it again.")
    runs_by_draw, rates = _runs_by_draw(labels), outcomes if outcomes.ndim == 1 else outcomes.mean(axis=1)
    cells = {key: [rates[run] for run in draws] for key, draws in runs_by_draw.items()}
    crossed_components, left_out = base_selection_components(cells, level, seed)
    components, prompt_sd = (
        [*crossed_components, draw_component(cells, level, seed), seed_component(cells, level, seed)],
        None,
    )
    if outcomes.ndim == 2:
        residuals = asked.cluster_residuals(outcomes, range(outcomes.shape[1]) if clusters is None else clusters)
        components.append(
            estimate_component(
                "prompt",
                residuals.shape[1],
                asked.common_prompt_squares(residuals, _independent_groups(labels)),
                level,
                seed,
            )
        )
        prompt_sd = asked.run_prompt_sd(residuals, [draw for draws in runs_by_draw.values() for draw in draws])
    else:
        components.append(VarianceComponent("prompt", 0, 0, note=NOTE_RATES))
    total = sum(component.sd**2 for component in components if component.sd is not None)
    shares = (
        replace(component, share=component.sd**2 / total) if component.sd is not None and total > 0 else component
        for component in components
    )
    notes = [NOTE_UNCROSSED.format(left=left_out)] if left_out else []
    if not EDGE_RATE <= (mean := float(rates.mean())) <= 1 - EDGE_RATE:
        notes.append(NOTE_EDGE.format(mean=mean))
    return VarianceComponents(
        len(labels), tuple(shares), sqrt(total) if total > 0 else None, prompt_sd, " ".join(notes)
    )


def _runs_by_draw(labels: Sequence[RunLabels]) -> dict[tuple[Hashable, Hashable], list[np.ndarray]]:
    """(base, selection) -> run numbers of each draw."""
    if len(set(labels)) < len(labels):
        raise UndersongError(f"{len(labels) - len(set(labels))} runs stand more than once; give every run once.")
    cells: dict[tuple[Hashable, Hashable], dict[Hashable, list[int]]] = {}
    selection_of_draw: dict[tuple[Hashable, Hashable], Hashable] = {}
    for run, label in enumerate(labels):
        if (first := selection_of_draw.setdefault((label.base, label.draw), label.selection)) != label.selection:
            raise UndersongError(f"Selections {first} and {label.selection} are the same ids: one arm, give it once.")
        cells.setdefault((label.base, label.selection), {}).setdefault(label.draw, []).append(run)
    return {key: [np.array(runs) for runs in draws.values()] for key, draws in cells.items()}


def _independent_groups(labels: Sequence[RunLabels]) -> list[np.ndarray]:
    """Run numbers in groups that share nothing but the prompts: by the outermost label that takes several values."""
    for name in ("base", "selection", "draw", "seed"):
        index = label_codes([getattr(label, name) for label in labels])
        if index.max() > 0:
            return [np.flatnonzero(index == value) for value in range(int(index.max()) + 1)]
    return [np.arange(len(labels))]
