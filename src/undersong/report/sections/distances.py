"""How far the pool lies from harm: a histogram an axis, coloured where arms were trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from undersong.report import words
from undersong.report.beforehand import Screen
from undersong.report.panels import Panel, Table, Value, number
from undersong.report.schema import Results
from undersong.report.summary import Arm, arms
from undersong.report.svg import Frame, kind_class, tag, ticks

HEIGHT = 150


def panels(results: Results, names: Sequence[str]) -> tuple[Panel, ...]:
    """One a screen, in their order; `names` of the screens."""
    every = arms(results)
    return tuple(
        Panel(words.sentence(name), picture)
        for screen, name in zip(results.screen, names, strict=True)
        if (picture := _histogram(screen, _trained_by(screen, every))) is not None
    )


def _trained_by(screen: Screen, every: Sequence[Arm]) -> list[Arm]:
    """The arms that were selected on this axis, to this harm set."""
    to = {run.harm_set for arm in every for run in arm.runs}
    mine = [arm for arm in every if arm.axis == screen.axis]
    return [arm for arm in mine if to == {None} or arm.runs[0].harm_set == screen.harm_set]


def _histogram(screen: Screen, of_axis: Sequence[Arm]) -> Markup | None:
    """Bars of the pool's distances; the part an arm was trained on has its colour."""
    bins = screen.histogram
    if bins is None or not bins.counts or len(bins.edges) != len(bins.counts) + 1 or max(bins.counts) <= 0:
        return None
    frame = Frame.of((bins.edges[0], bins.edges[-1]), (0.0, max(bins.counts)), HEIGHT)
    at = ticks(bins.edges[0], bins.edges[-1], 4)
    places = words.places(at)
    marks = [
        frame.foot([(value, words.decimal(value, places)) for value in at], "distance to the nearest harmful item")
    ]
    share = {
        kind: max((_share(arm, screen) for arm in of_axis if arm.kind == kind), default=0.0)
        for kind in ("closest", "distant")
    }
    total, seen, precise = sum(bins.counts), 0.0, words.distances(bins.edges)
    for low, high, count in zip(bins.edges, bins.edges[1:], bins.counts, strict=False):
        middle = (seen + count / 2) / total
        kind = "closest" if middle <= share["closest"] else "distant" if middle >= 1 - share["distant"] else "random"
        marks.append(_bar(frame, low, high, count, kind, precise))
        seen += count
    about = f"Distances on the {screen.axis} axis: " + ", ".join(
        f"{name} {words.decimal(value, precise)}" for name, value in screen.distances.items() if value is not None
    )
    return frame.draw(marks, f"{about}.")


def table(screens: Sequence[Screen], names: Sequence[str]) -> Table:
    """The bins of all histograms, a row each; `names` of the screens, in their order."""

    def rows() -> Iterator[tuple[str | Value, ...]]:
        for screen, name in zip(screens, names, strict=True):
            if (bins := screen.histogram) is not None:
                places = words.distances(bins.edges)
                for low, high, count in zip(bins.edges, bins.edges[1:], bins.counts, strict=False):
                    ends = (number(end, places=places) for end in (low, high))
                    yield words.sentence(name), *ends, Value(f"{count:,.0f}", count)

    return Table("Samples of the pool by distance", ("Axis", "from", "to", "samples"), tuple(rows()))


def _share(arm: Arm, screen: Screen) -> float:
    if arm.k is not None and screen.n_pool:
        return min(arm.k / screen.n_pool, 1.0)
    return arm.fraction or 0.0


def _bar(frame: Frame, low: float, high: float, count: float, kind: str, places: int) -> Markup:
    left, right, top = frame.x(low), frame.x(high), frame.y(count)
    about = f"{words.decimal(low, places)} to {words.decimal(high, places)}: {words.count(int(count), 'sample')}"
    return tag(
        "rect", tag("title", about), x=f"{left:.2f}%", width=f"{max(right - left - 0.3, 0.1):.2f}%", y=top,
        height=HEIGHT - top, class_=f"column {kind_class(kind)}",
    )  # fmt: skip
