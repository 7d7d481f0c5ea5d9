"""JSR at the last step against how near the training samples stand to harmful content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from undersong.report import words
from undersong.report.panels import Group, Panel, jitter, trained
from undersong.report.schema import Results, Screen
from undersong.report.summary import Arm, Facet, View, arms, estimate, facets, kind_order, view
from undersong.report.svg import Frame, Tick, kind_class, percent_axis, tag, ticks

HEIGHT = 232


@dataclass(frozen=True, slots=True)
class Nearness:
    rate: str
    asked: str
    groups: tuple[Group, ...]
    by_distance: bool  # False: some distances are not known, and their panels stand by kind


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
    shown, every = view(results), facets(results)
    if shown is None or not every:
        return None
    modality = "audio" if any(shown.cells(facet.bases + facet.arms[0].runs, "audio") for facet in every) else "text"
    screens = {screen.axis: screen for screen in results.screen}
    rates = [cell.rate for arm in arms(results) for cell in shown.cells(arm.at(arm.last_step), modality)]
    if not rates:
        return None
    plots = [(facet, screens.get(facet.axis or "")) for facet in every]
    known = [all(mean_distance(arm, screen) is not None for arm in facet.arms) for facet, screen in plots]
    top = percent_axis(max(rates))[0]
    groups = tuple(
        Group(facet.title, tuple(_panels(facet, _across(facet, screen if there else None), shown, modality, top)))
        for (facet, screen), there in zip(plots, known, strict=True)
    )
    return Nearness(shown.rate, words.spoken(modality), groups, all(known))


def _panels(facet: Facet, across: Across, shown: View, modality: str, top: float) -> Iterable[Panel]:
    for train_modality in facet.train_modalities:
        members = [arm for arm in facet.of(train_modality) if shown.cells(arm.at(arm.last_step), modality)]
        if members:
            title = trained(train_modality)
            yield Panel(title, _plot(facet, members, across, shown, modality, top, title))


@dataclass(frozen=True, slots=True)
class Across:
    """The x axis: distances where every arm has one, else the kinds side by side."""

    domain: tuple[float, float]
    ticks: list[Tick]
    title: str
    at: dict[str, float]  # by arm


def _across(facet: Facet, screen: Screen | None) -> Across:
    if screen is not None:
        at = {arm.name: mean_distance(arm, screen) or 0.0 for arm in facet.arms}
        span = max(at.values()) - min(at.values()) or 0.1
        low, high = min(at.values()) - 0.18 * span, max(at.values()) + 0.18 * span
        marks = ticks(low, high, 4)
        named = [(value, words.decimal(value, words.places(marks))) for value in marks]
        return Across((low, high), named, "mean distance of the training samples", at)
    kinds = sorted({arm.kind for arm in facet.arms}, key=kind_order)
    at = {arm.name: float(kinds.index(arm.kind)) for arm in facet.arms}
    return Across((-0.5, len(kinds) - 0.5), [(float(i), kind) for i, kind in enumerate(kinds)], "selection", at)


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
    for arm in members:
        rates = [cell.rate for cell in shown.cells(arm.at(arm.last_step), modality)]
        shifts = jitter([str(i) for i in range(len(rates))], 7.0)
        for i, rate in enumerate(rates):
            about = f"{arm.label}, run {i + 1}: {words.percent(rate)}"
            marks.append(frame.dot(across.at[arm.name], rate, arm.kind, about, "run-dot", shifts[str(i)]))
        marks.append(_name(frame, across.at[arm.name], arm, rates, top))
        said.append(f"{arm.kind} at {words.decimal(across.at[arm.name])}: {words.percent(sum(rates) / len(rates))}")
    return frame.draw(marks, f"{title}: {shown.rate} at the last step against {across.title}. {'; '.join(said)}.")


def _name(frame: Frame, x: float, arm: Arm, rates: Sequence[float], top: float) -> Markup:
    """The kind over its dots, or under them where they stand near the top."""
    y = frame.y(max(rates)) - 13 if max(rates) < 0.85 * top else frame.y(min(rates)) + 22
    return tag("text", arm.kind, x=f"{frame.x(x):.2f}%", y=y, class_=f"name mid {kind_class(arm.kind)}")
