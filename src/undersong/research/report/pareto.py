"""Scatter plots of JSR against the cost of each defense, with the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.svg import PlotFrame, percent_axis, tag
from undersong.pages.tables import NumberCell, Panel, PanelGroup, Table, percent_cell
from undersong.results.schema_defenses import CostPart, DefenseRecord

HEIGHT, WIDTH = 190, 320  # pixels; the width is that of a usual page
MIN_DEFENSES = 4  # rows that are worth a picture


@dataclass(frozen=True, slots=True)
class TradeoffPoint:
    """A defense with its JSR and one part of its cost, each where it is highest, as shares; `number` counts from 1."""

    number: int
    name: str
    jsr: float
    cost: float


def build_tradeoff_group(title: str, rows: Sequence[DefenseRecord], rate: str) -> PanelGroup | None:
    """Build the scatter plots of one undefended arm; None if it has too few defenses to plot."""
    if len(rows) < MIN_DEFENSES:
        return None
    panels = [
        panel
        for name, cost in COSTS
        if (panel := _tradeoff_panel(name, _tradeoff_points(rows, cost), rate)) is not None
    ]
    return PanelGroup(title, tuple(panels)) if panels else None


def tradeoff_table(blocks: Sequence[tuple[str, Sequence[DefenseRecord]]], rate: str) -> Table:
    """Build the table of JSR and cost of each defense, which holds the numbers of the scatter plots."""
    head = ("Defense", "Of", "Cost", f"{rate} where it is highest, %", "cost, %")
    rows: list[tuple[str | NumberCell, ...]] = [
        (point.name, title, name, percent_cell(point.jsr), percent_cell(point.cost))
        for title, block in blocks
        for name, cost in COSTS
        if len(points := _tradeoff_points(block, cost)) >= MIN_DEFENSES
        for point in points
    ]
    return Table(f"{rate} and cost of every defense", head, tuple(rows), names=3)


def _tradeoff_points(
    rows: Sequence[DefenseRecord], cost: Callable[[DefenseRecord], float | None]
) -> list[TradeoffPoint]:
    points = []
    for number, row in enumerate(rows, start=1):
        rates = [interval.value for interval in row.jsr.values() if interval.value is not None]
        cost_value = cost(row)
        if rates and cost_value is not None:
            points.append(TradeoffPoint(number, row.defense, max(rates), cost_value))
    return points


def _loss(part: CostPart | None) -> float | None:
    """A gain is no cost."""
    return None if part is None else max(0.0, part.loss)


def _tradeoff_panel(name: str, points: Sequence[TradeoffPoint], rate: str) -> Panel | None:
    if len(points) < MIN_DEFENSES:
        return None
    x_max, x_ticks = percent_axis(max(point.jsr for point in points))
    y_max, y_ticks = percent_axis(max(point.cost for point in points))
    frame = PlotFrame.from_domains((0.0, x_max), (0.0, y_max), HEIGHT, inset=3)
    front = [(point.jsr, point.cost) for point in pareto_front(points)]
    marks = [
        frame.grid(y_ticks),
        frame.x_axis(x_ticks, f"{rate}, where it is highest"),
        frame.polyline(front, "mean k-base dashed"),
    ]
    marks += _numbered_dots(frame, points, rate)
    description = "; ".join(
        f"{p.name}: {rate} {formatting.percent(p.jsr)}, {formatting.percent(p.cost)}" for p in points
    )
    key = tuple(f"{point.number} {point.name}" for point in points)
    return Panel(name, frame.draw(marks, f"{rate} against {name}. {description}."), key)


def _numbered_dots(frame: PlotFrame, points: Sequence[TradeoffPoint], rate: str) -> Iterator[Markup]:
    """Dots, and their numbers where they cover no other number or dot, as far as there is room."""
    positions = [(WIDTH * frame.x(point.jsr) / 100, frame.y(point.cost)) for point in points]
    occupied = [(x, y, 4.0, 4.0) for x, y in positions]
    for point, (x, y) in zip(points, positions, strict=True):
        half = 3.6 * len(str(point.number))
        offsets = [(dx * (half + 4), dy) for dy in (-7, 8, -18, 19, -29) for dx in (1, -1, 0)]
        free_offsets = [
            (dx, dy) for dx, dy in offsets if not any(_boxes_overlap(x + dx, y + dy, half, box) for box in occupied)
        ]
        dx, dy = (free_offsets or offsets)[0]
        occupied.append((x + dx, y + dy, half, 5.0))
        description = f"{point.name}: {rate} {formatting.percent(point.jsr)}, {formatting.percent(point.cost)}"
        yield frame.dot(point.jsr, point.cost, "base" if point.name == "none" else "distant", description)
        x_at = f"{frame.x(point.jsr):.2f}%"
        yield tag("text", str(point.number), x=x_at, y=y, dx=dx, dy=dy + 4, class_="tick mid")


def _boxes_overlap(x: float, y: float, half: float, box: tuple[float, float, float, float]) -> bool:
    return abs(x - box[0]) < half + box[2] and abs(y - box[1]) < 5.0 + box[3]


COSTS: tuple[tuple[str, Callable[[DefenseRecord], float | None]], ...] = (
    ("rise of over-refusal", lambda row: _loss(row.over_refusal_rise)),
    ("loss of utility", lambda row: _loss(row.utility_loss)),
    ("of what the tuning taught, lost", lambda row: row.retention_loss),
)


def pareto_front(points: Sequence[TradeoffPoint]) -> list[TradeoffPoint]:
    """Return the points that no other point beats on both JSR and cost, ordered by rising JSR."""
    front: list[TradeoffPoint] = []
    for point in sorted(points, key=lambda candidate: (candidate.jsr, candidate.cost)):
        if not front or point.cost < front[-1].cost:
            front.append(point)
    return front


def tradeoff_groups(blocks: Sequence[tuple[str, Sequence[DefenseRecord]]], rate: str) -> Iterator[PanelGroup]:
    """Yield a group of scatter plots for each undefended arm with enough defenses to plot."""
    for title, rows in blocks:
        if (group := build_tradeoff_group(title, rows, rate)) is not None:
            yield group
