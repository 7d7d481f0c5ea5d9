"""How far the pool lies from harm: a histogram an axis, coloured where arms were trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from undersong.report import formatting
from undersong.report.summary import ArmSummary, arm_summaries
from undersong.report.svg import PlotFrame, kind_class, tag, ticks
from undersong.report.tables import NumberCell, Panel, Table, number_cell
from undersong.results.schema import Results
from undersong.results.schema_screening import AxisScreening

HEIGHT = 150


def histogram_panels(results: Results, names: Sequence[str]) -> tuple[Panel, ...]:
    """One a screen, in their order; `names` of the screens."""
    arm_list = arm_summaries(results)
    return tuple(
        Panel(formatting.capitalize_first(name), picture)
        for screen, name in zip(results.screen, names, strict=True)
        if (picture := _histogram(screen, _arms_on_axis(screen, arm_list))) is not None
    )


def _arms_on_axis(screen: AxisScreening, arm_list: Sequence[ArmSummary]) -> list[ArmSummary]:
    """The arms that were selected on this axis, to this harm set."""
    harm_sets = {run.harm_set for arm in arm_list for run in arm.runs}
    axis_arms = [arm for arm in arm_list if arm.axis == screen.axis]
    return [arm for arm in axis_arms if harm_sets == {None} or arm.runs[0].harm_set == screen.harm_set]


def _histogram(screen: AxisScreening, axis_arms: Sequence[ArmSummary]) -> Markup | None:
    """Bars of the pool's distances; the part an arm was trained on has its colour."""
    bins = screen.histogram
    if bins is None or not bins.counts or len(bins.edges) != len(bins.counts) + 1 or max(bins.counts) <= 0:
        return None
    frame = PlotFrame.from_domains((bins.edges[0], bins.edges[-1]), (0.0, max(bins.counts)), HEIGHT)
    x_ticks = ticks(bins.edges[0], bins.edges[-1], 4)
    tick_decimals = formatting.decimals_needed(x_ticks)
    marks = [
        frame.x_axis(
            [(value, formatting.decimal(value, tick_decimals)) for value in x_ticks],
            "distance to the nearest harmful item",
        )
    ]
    selected_shares = {
        kind: max((_selected_share(arm, screen) for arm in axis_arms if arm.kind == kind), default=0.0)
        for kind in ("closest", "distant")
    }
    total, cumulative, decimals = sum(bins.counts), 0.0, formatting.distance_decimals(bins.edges)
    for low, high, count in zip(bins.edges, bins.edges[1:], bins.counts, strict=False):
        middle = (cumulative + count / 2) / total
        kind = (
            "closest"
            if middle <= selected_shares["closest"]
            else "distant"
            if middle >= 1 - selected_shares["distant"]
            else "random"
        )
        marks.append(_histogram_bar(frame, low, high, count, kind, decimals))
        cumulative += count
    description = f"Distances on the {screen.axis} axis: " + ", ".join(
        f"{name} {formatting.decimal(value, decimals)}" for name, value in screen.distances.items() if value is not None
    )
    return frame.draw(marks, f"{description}.")


def histogram_table(screens: Sequence[AxisScreening], names: Sequence[str]) -> Table:
    """The bins of all histograms, a row each; `names` of the screens, in their order."""

    def rows() -> Iterator[tuple[str | NumberCell, ...]]:
        for screen, name in zip(screens, names, strict=True):
            if (bins := screen.histogram) is not None:
                decimals = formatting.distance_decimals(bins.edges)
                for low, high, count in zip(bins.edges, bins.edges[1:], bins.counts, strict=False):
                    ends = (number_cell(end, decimals=decimals) for end in (low, high))
                    yield formatting.capitalize_first(name), *ends, NumberCell(f"{count:,.0f}", count)

    return Table("Samples of the pool by distance", ("Axis", "from", "to", "samples"), tuple(rows()))


def _selected_share(arm: ArmSummary, screen: AxisScreening) -> float:
    if arm.k is not None and screen.n_pool:
        return min(arm.k / screen.n_pool, 1.0)
    return arm.fraction or 0.0


def _histogram_bar(frame: PlotFrame, low: float, high: float, count: float, kind: str, decimals: int) -> Markup:
    left, right, top = frame.x(low), frame.x(high), frame.y(count)
    description = f"{formatting.decimal(low, decimals)} to {formatting.decimal(high, decimals)}: {formatting.count(int(count), 'sample')}"
    return tag(
        "rect", tag("title", description), x=f"{left:.2f}%", width=f"{max(right - left - 0.3, 0.1):.2f}%", y=top,
        height=HEIGHT - top, class_=f"column {kind_class(kind)}",
    )  # fmt: skip
