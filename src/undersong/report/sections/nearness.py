"""JSR at the last step against how near the training samples stand to harmful content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from undersong.report import words
from undersong.report.panels import Group, Panel, jitter
from undersong.report.schema import Results, Screen
from undersong.report.summary import Arm, Estimate, Facet, View, arms, estimate, facets, kind_order, view
from undersong.report.svg import Frame, Tick, kind_class, percent_axis, ticks

HEIGHT = 232


@dataclass(frozen=True, slots=True)
class Nearness:
    rate: str
    asked: str
    groups: tuple[Group, ...]
    by_distance: bool  # False: at least one panel stands by kind, its distances not being known
    ranks: tuple[str, ...]  # one sentence a panel: the rank correlation of arms, where there are enough


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
    modality = "audio" if any(shown.rows(facet.bases + facet.arms[0].runs, "audio") for facet in every) else "text"
    screens = {screen.axis: screen for screen in results.screen}
    rates = [row.rate or 0.0 for arm in arms(results) for row in shown.rows(arm.at(arm.last_step), modality)]
    if not rates:
        return None
    plots = [(facet, screens.get(facet.axis or "")) for facet in every]
    known = [all(mean_distance(arm, screen) is not None for arm in facet.arms) for facet, screen in plots]
    top = percent_axis(max(rates))[0]
    groups = tuple(
        Group(facet.title, tuple(_panels(facet, screen if there else None, shown, modality, top)))
        for (facet, screen), there in zip(plots, known, strict=True)
    )
    return Nearness(shown.rate, words.spoken(modality), groups, all(known), ())


def _panels(facet: Facet, screen: Screen | None, shown: View, modality: str, top: float) -> Iterable[Panel]:
    for train_modality in facet.train_modalities:
        members = [arm for arm in facet.of(train_modality) if shown.rows(arm.at(arm.last_step), modality)]
        if members:
            title = f"Trained on {train_modality or 'the selection'}"
            yield Panel(title, _plot(facet, members, screen, shown, modality, top, title))


def _places(members: Sequence[Arm], facet: Facet, screen: Screen | None) -> tuple[Frame, list[Tick], str, dict[str, float]]:
    """The x axis: distances where every arm has one, else the kinds side by side."""
    if screen is not None:
        at = {arm.name: mean_distance(arm, screen) or 0.0 for arm in facet.arms}
        span = max(at.values()) - min(at.values()) or 0.1
        low, high = min(at.values()) - 0.08 * span, max(at.values()) + 0.08 * span
        marks = ticks(low, high, 4)
        places = words.distances(marks)
        named = [(value, words.decimal(value, places if places > 3 else 2)) for value in marks]
        title = f"mean distance of training samples ({facet.axis} axis)"
        return Frame.of((low, high), (0.0, 1.0), HEIGHT), named, title, at
    kinds = sorted({arm.kind for arm in facet.arms}, key=kind_order)
    at = {arm.name: float(kinds.index(arm.kind)) for arm in members}
    frame = Frame.of((-0.5, len(kinds) - 0.5), (0.0, 1.0), HEIGHT)
    return frame, [(float(i), kind) for i, kind in enumerate(kinds)], "selection", at


def _plot(facet: Facet, members: Sequence[Arm], screen: Screen | None, shown: View, modality: str, top: float, title: str) -> Markup:  # fmt: skip
    plain, at_x, x_title, places = _places(members, facet, screen)
    frame = Frame(plain.x, Frame.of((0, 1), (0.0, top), HEIGHT).y, HEIGHT)
    marks = [frame.grid(percent_axis(top)[1]), frame.foot(at_x, x_title)]
    base = estimate(shown.rows(facet.bases, modality))
    labels: list[tuple[float, str, str]] = []
    if base is not None:
        marks.append(frame.level(base.mean, "k-base", base.low, base.high))
        labels.append((base.mean, f"base {words.bare(base.mean)}", "k-base"))
    said = []
    for arm in members:
        rows = shown.rows(arm.at(arm.last_step), modality)
        number = estimate(rows)
        assert number is not None
        shifts = jitter([str(i) for i in range(len(rows))], 6.0)
        marks.extend(
            frame.dot(places[arm.name], row.rate or 0.0, arm.kind, _about(arm, row.rate, i), shift=shifts[str(i)])
            for i, row in enumerate(rows)
        )
        marks.append(_name(frame, places[arm.name], arm, number, top))
        said.append(f"{arm.kind}{_distance(screen, places[arm.name])}: {words.percent(number.mean)}")
    about = f"{title}: {shown.rate} at the last step against proximity. {'; '.join(said)}."
    return frame.draw([*marks, frame.right_labels(labels)], about)


def _about(arm: Arm, rate: float | None, i: int) -> str:
    return f"{arm.label}, run {i + 1}: {words.percent(rate)}"


def _distance(screen: Screen | None, value: float) -> str:
    return f" at distance {words.decimal(value)}" if screen is not None else ""


def _name(frame: Frame, x: float, arm: Arm, number: Estimate, top: float) -> Markup:
    """The arm's name over its dots, or under them where they stand near the top."""
    from undersong.report.svg import tag

    highest = number.mean
    y = frame.y(highest) + (30 if highest > 0.8 * top else -22)
    return tag("text", arm.kind, x=f"{frame.x(x):.2f}%", y=y, class_=f"name mid {kind_class(arm.kind)}")
