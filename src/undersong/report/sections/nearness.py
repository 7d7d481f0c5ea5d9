"""JSR at the last step against how near the training samples stand to harmful content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from undersong.report import words
from undersong.report.beforehand import Screen
from undersong.report.panels import Group, Panel, Table, Value, jitter, number, share, trained
from undersong.report.schema import Results, Run
from undersong.report.summary import Arm, Facet, View, arms, estimate, facets, kind_order, view
from undersong.report.svg import Frame, Tick, kind_class, percent_axis, tag, ticks

HEIGHT = 232
MOST_NAMED = 4  # arms that are named where they stand; of more, names would lie on each other


@dataclass(frozen=True, slots=True)
class Nearness:
    """A panel a facet and training modality; `asked`: spoken | typed, spoken where it was asked."""

    rate: str
    asked: str
    groups: tuple[Group, ...]
    by_distance: bool  # False: some distances are not known, and their panels stand by kind
    exact: bool  # False: distances are read from a histogram
    numbers: Table


def distance_of(run: Run, arm: Arm, screen: Screen | None) -> float | None:
    """The mean distance of a run's training samples: its own, or as the screen's histogram has it for the arm."""
    return run.mean_distance if run.mean_distance is not None else mean_distance(arm, screen)


def mean_distance(arm: Arm, screen: Screen | None) -> float | None:
    """The mean distance of the arm's samples, from the screen's histogram (exact to the width of its bins).

    closest: the k lowest of the pool; distant: the k highest; random: the pool.  None without a histogram of the axis.
    """
    if screen is None or screen.histogram is None or len(screen.histogram.edges) != len(screen.histogram.counts) + 1:
        return None
    edges, counts = np.asarray(screen.histogram.edges), np.asarray(screen.histogram.counts)
    middles, pool = (edges[1:] + edges[:-1]) / 2, float(counts.sum())
    k = pool if arm.kind == "random" else float(arm.k) if arm.k is not None else (arm.fraction or 0.0) * pool
    if not 0 < k <= pool or arm.kind not in ("closest", "distant", "random"):
        return None
    order = slice(None, None, -1) if arm.kind == "distant" else slice(None)
    before = np.concatenate([[0.0], np.cumsum(counts[order])[:-1]])
    taken = np.clip(k - before, 0.0, counts[order])
    return float(taken @ middles[order] / taken.sum())


def build(results: Results) -> Nearness | None:
    """None where no arm was tuned, or none was asked harmful prompts."""
    shown, every = view(results), facets(results)
    if shown is None or not every:
        return None
    modality = "audio" if any(shown.cells(facet.bases + facet.arms[0].runs, "audio") for facet in every) else "text"
    cells = [cell for arm in arms(results) for cell in shown.cells(arm.at(arm.last_step), modality)]
    if not cells:
        return None
    bases = [estimate(shown.cells(facet.bases, modality)) for facet in every]
    ends = [base.high or base.mean for base in bases if base is not None]
    top = percent_axis(max([*(cell.rate for cell in cells), *ends]))[0]
    plots = [(facet, _across(facet, _screen(facet, results))) for facet in every]
    rows = tuple(row for facet, across in plots for row in _numbers(facet, across, shown, modality))
    head = ("Arm", "Base", "draw", "seed", "mean distance", f"{shown.rate}, % [95 % over prompts]", "n, prompts")
    return Nearness(
        rate=shown.rate,
        asked=words.spoken(modality),
        groups=tuple(Group(f.title, tuple(_panels(f, across, shown, modality, top))) for f, across in plots),
        by_distance=all(across.measured for _, across in plots),
        exact=all(cell.run.mean_distance is not None for cell in cells),
        numbers=Table(f"{shown.rate} of every run at its last step", head, rows, names=2),
    )


def _screen(facet: Facet, results: Results) -> Screen | None:
    """The screen of the facet's axis, by its own model where screens name one."""
    own = {run.model for arm in facet.arms for run in arm.runs}
    of_axis = [screen for screen in results.screen if screen.axis == facet.axis]
    return next((screen for screen in of_axis if screen.model in own), of_axis[0] if of_axis else None)


def _panels(facet: Facet, across: Across, shown: View, modality: str, top: float) -> Iterable[Panel]:
    for train_modality in facet.train_modalities:
        members = [arm for arm in facet.of(train_modality) if shown.cells(arm.at(arm.last_step), modality)]
        if members:
            title = trained(train_modality)
            numbered = len(members) > MOST_NAMED
            key = tuple(f"{i} {arm.kind}" for i, arm in enumerate(members, 1)) if numbered else ()
            yield Panel(title, _plot(facet, members, across, shown, modality, top, title), key)


@dataclass(frozen=True, slots=True)
class Across:
    """The x axis: distances where every arm has one, else the kinds side by side."""

    domain: tuple[float, float]
    ticks: list[Tick]
    title: str
    at: dict[tuple[str, int | None, int | None], float]  # by arm, draw and seed
    measured: bool

    def of(self, arm: Arm, run: Run) -> float:
        """Where the run stands on the axis: a mean cosine distance, or the place of its arm's kind."""
        return self.at[arm.name, run.draw, run.seed]


def _across(facet: Facet, screen: Screen | None) -> Across:
    pairs = [(arm, run) for arm in facet.arms for run in arm.at(arm.last_step)]
    known = {(arm.name, run.draw, run.seed): distance_of(run, arm, screen) for arm, run in pairs}
    at = {key: value for key, value in known.items() if value is not None}
    if len(at) == len(known):
        span = max(at.values()) - min(at.values()) or 0.1
        low, high = min(at.values()) - 0.18 * span, max(at.values()) + 0.18 * span
        marks = ticks(low, high, 4)
        named = [(value, words.decimal(value, words.places(marks))) for value in marks]
        return Across((low, high), named, "mean distance of the training samples", at, True)
    kinds = sorted({arm.kind for arm in facet.arms}, key=kind_order)
    at = {(arm.name, run.draw, run.seed): float(kinds.index(arm.kind)) for arm, run in pairs}
    named = [(float(i), kind) for i, kind in enumerate(kinds)]
    return Across((-0.5, len(kinds) - 0.5), named, "kind of selection", at, False)


def _numbers(facet: Facet, across: Across, shown: View, modality: str) -> Iterable[tuple[str | Value, ...]]:
    for arm in facet.arms:
        for cell in shown.cells(arm.at(arm.last_step), modality):
            run = cell.run
            base = ", ".join(str(part) for part in (run.model, run.base_seed) if part is not None)
            place = number(across.of(arm, run)) if across.measured else Value(words.NONE, None)
            drawn = (number(value, places=0) for value in (run.draw, run.seed))
            rate = share(cell.rate, cell.row.low, cell.row.high)
            yield arm.label, base or words.NONE, *drawn, place, rate, f"{cell.row.n:,}"


def _plot(
    facet: Facet, members: Sequence[Arm], across: Across, shown: View, modality: str, top: float, title: str
) -> Markup:
    frame = Frame.of(across.domain, (0.0, top), HEIGHT)
    marks = [frame.grid(percent_axis(top)[1]), frame.foot(across.ticks, across.title)]
    base = estimate(shown.cells(facet.bases, modality))
    if base is not None:
        marks.append(frame.level(base.mean, "k-base", base.low, base.high))
        marks.append(frame.right_labels([(base.mean, f"base {words.bare(base.mean)}", "k-base")]))
    said = []
    for place, arm in enumerate(members, 1):
        cells = shown.cells(arm.at(arm.last_step), modality)
        rates, places = [cell.rate for cell in cells], [across.of(arm, cell.run) for cell in cells]
        shifts = jitter([str(i) for i in range(len(cells))], 7.0 if len(set(places)) == 1 else 0.0)
        for i, (x, rate) in enumerate(zip(places, rates, strict=True)):
            about = f"{arm.label}, run {i + 1}: {words.percent(rate)}"
            marks.append(frame.dot(x, rate, arm.kind, about, "run-dot", shifts[str(i)]))
        middle = sum(places) / len(places)
        named = len(members) <= MOST_NAMED
        beside = 0.0 if named else 9.0 * (place - (len(members) + 1) / 2)  # pixels: numbers of one place side by side
        marks.append(_name(frame, middle, arm.kind if named else str(place), arm.kind, rates, top, beside))
        where = f" at {words.decimal(middle)}" if across.measured else ""
        said.append(f"{arm.kind}{where}: {words.percent(sum(rates) / len(rates))}")
    return frame.draw(marks, f"{title}: {shown.rate} at the last step against {across.title}. {'; '.join(said)}.")


def _name(frame: Frame, x: float, name: str, kind: str, rates: Sequence[float], top: float, beside: float) -> Markup:
    """The arm's name over its dots, or under them where they stand near the top."""
    y = frame.y(max(rates)) - 13 if max(rates) < 0.85 * top else frame.y(min(rates)) + 22
    return tag("text", name, x=f"{frame.x(x):.2f}%", y=y, dx=beside or None, class_=f"name mid {kind_class(kind)}")
