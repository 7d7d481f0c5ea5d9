"""What a defense brings against what it costs, as a picture: JSR beside over-refusal, usefulness and what is learned.

The line joins the defenses that no other one betters in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import words
from undersong.report.panels import Group, Panel, Table, Value, share
from undersong.report.schema import Defense, Interval
from undersong.report.svg import Frame, percent_axis, tag

HEIGHT, WIDTH = 190, 320  # pixels; the width is that of a usual page
LEAST = 4  # rows that are worth a picture


@dataclass(frozen=True, slots=True)
class Point:
    """A defense: JSR and one cost, each where it is highest, as shares; `number`: its row in the table, from 1."""

    number: int
    name: str
    jsr: float
    cost: float


def build(title: str, rows: Sequence[Defense], rate: str) -> Group | None:
    """`rows` of one undefended arm, in the order of their table; None for so few that the table says it all."""
    if len(rows) < LEAST:
        return None
    panels = [panel for name, cost in COSTS if (panel := _panel(name, _points(rows, cost), rate)) is not None]
    return Group(title, tuple(panels)) if panels else None


def table(blocks: Sequence[tuple[str, Sequence[Defense]]], rate: str) -> Table:
    """What the pictures of `groups` show."""
    head = ("Defense", "Of", "Cost", f"{rate} where it is highest, %", "cost, %")
    rows: list[tuple[str | Value, ...]] = [
        (point.name, title, name, share(point.jsr), share(point.cost))
        for title, block in blocks
        for name, cost in COSTS
        if len(points := _points(block, cost)) >= LEAST
        for point in points
    ]
    return Table(f"{rate} and cost of every defense", head, tuple(rows), names=3)


def _points(rows: Sequence[Defense], cost: Callable[[Defense], float | None]) -> list[Point]:
    found = []
    for number, row in enumerate(rows, start=1):
        rates = [one.mean for one in row.jsr.values() if one is not None and one.mean is not None]
        lost = cost(row)
        if rates and lost is not None:
            found.append(Point(number, row.defense, max(rates), lost))
    return found


def _worst(sets: dict[str, dict[str, Interval | None]], worse: Callable[[Sequence[float]], float]) -> float | None:
    means = [one.mean for modes in sets.values() for one in modes.values() if one is not None and one.mean is not None]
    return worse(means) if means else None


def _lost(row: Defense) -> float | None:
    right = _worst(row.utility, min)
    return None if right is None else 1 - right


def _unlearned(row: Defense) -> float | None:
    if row.defense == "none":
        return 0.0
    return None if row.kept is None or row.kept.mean is None else min(1.0, max(0.0, 1 - row.kept.mean))


def _panel(name: str, points: Sequence[Point], rate: str) -> Panel | None:
    if len(points) < LEAST:
        return None
    right, at_x = percent_axis(max(point.jsr for point in points))
    top, at_y = percent_axis(max(point.cost for point in points))
    frame = Frame.of((0.0, right), (0.0, top), HEIGHT, inset=3)
    front = [(point.jsr, point.cost) for point in pareto(points)]
    marks = [
        frame.grid(at_y),
        frame.foot(at_x, f"{rate}, where it is highest"),
        frame.path(front, "mean k-base dashed"),
    ]
    marks += _marks(frame, points, rate)
    told = "; ".join(f"{p.name}: {rate} {words.percent(p.jsr)}, {words.percent(p.cost)}" for p in points)
    key = tuple(f"{point.number} {point.name}" for point in points)
    return Panel(name, frame.draw(marks, f"{rate} against {name}. {told}."), key)


def _marks(frame: Frame, points: Sequence[Point], rate: str) -> Iterator[Markup]:
    """Dots, and their numbers where they cover no other number or dot, as far as there is room."""
    at = [(WIDTH * frame.x(point.jsr) / 100, frame.y(point.cost)) for point in points]
    taken = [(x, y, 4.0, 4.0) for x, y in at]
    for point, (x, y) in zip(points, at, strict=True):
        half = 3.6 * len(str(point.number))
        spots = [(dx * (half + 4), dy) for dy in (-7, 8, -18, 19, -29) for dx in (1, -1, 0)]
        free = [(dx, dy) for dx, dy in spots if not any(_touch(x + dx, y + dy, half, box) for box in taken)]
        dx, dy = (free or spots)[0]
        taken.append((x + dx, y + dy, half, 5.0))
        about = f"{point.name}: {rate} {words.percent(point.jsr)}, {words.percent(point.cost)}"
        yield frame.dot(point.jsr, point.cost, "base" if point.name == "none" else "distant", about)
        x_at = f"{frame.x(point.jsr):.2f}%"
        yield tag("text", str(point.number), x=x_at, y=y, dx=dx, dy=dy + 4, class_="tick mid")


def _touch(x: float, y: float, half: float, box: tuple[float, float, float, float]) -> bool:
    return abs(x - box[0]) < half + box[2] and abs(y - box[1]) < 5.0 + box[3]


COSTS: tuple[tuple[str, Callable[[Defense], float | None]], ...] = (
    ("over-refusal", lambda row: _worst(row.over_refusal, max)),
    ("benign prompts not answered rightly", _lost),
    ("of what the tuning taught, lost", _unlearned),
)


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those that none betters in one and equals in the other, from the lowest JSR on."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.jsr, one.cost)):
        if not front or point.cost < front[-1].cost:
            front.append(point)
    return front


def groups(blocks: Sequence[tuple[str, Sequence[Defense]]], rate: str) -> Iterator[Group]:
    """Of every block that is worth a picture."""
    for title, rows in blocks:
        if (group := build(title, rows, rate)) is not None:
            yield group
