"""Plot elements as inline SVG: scales, ticks, frames, dots, intervals and strips.

Independent of the results schema.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Tick = tuple[float, str]

_SHAPES = {  # one shape a kind, so that color never carries a meaning alone
    "closest": "M4.2,0A4.2,4.2,0,1,1,-4.2,0A4.2,4.2,0,1,1,4.2,0Z",
    "random": "M-3.6,-3.6H3.6V3.6H-3.6Z",
    "distant": "M0,-5.2L5.2,0L0,5.2L-5.2,0Z",
    "base": "M-1.6,-6H1.6V6H-1.6Z",
}
_SHARE_AXES = ((0.05, 0.01), (0.1, 0.02), (0.25, 0.05), (0.5, 0.1), (1.0, 0.25))
_OTHER_SHAPE = "M0,-4.8L4.6,3.6H-4.6Z"


def tag(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """One element, everything in it escaped.  `class_` is class, `stroke_width` stroke-width; None leaves out."""
    attribute_text = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _number(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), attribute_text, Markup("").join(children))


def _number(value: str | float) -> str:
    if isinstance(value, str):
        return value
    short = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


@dataclass(frozen=True, slots=True)
class LinearScale:
    """Linear: `domain` -> `range`; a domain of one value goes to the middle."""

    domain: tuple[float, float]
    range: tuple[float, float]

    def __call__(self, value: float) -> float:
        """Values outside the domain go on in a line, uncut."""
        (low, high), (start, end) = self.domain, self.range
        share = 0.5 if high == low else (value - low) / (high - low)
        return start + share * (end - start)


def ticks(low: float, high: float, target_count: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) from `low` to `high`, both included where they are round."""
    if high <= low:
        return [low]
    rough = (high - low) / target_count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def percent_axis(highest: float) -> tuple[float, list[Tick]]:
    """Where an axis of shares ends so that `highest` fits, and its ticks in per cent."""
    top, step = next(((top, step) for top, step in _SHARE_AXES if highest <= top), _SHARE_AXES[-1])
    tick_shares = [i * step for i in range(round(top / step) + 1)]
    return top, [(share, f"{100 * share:g}" + ("\u202f%" if share == tick_shares[-1] else "")) for share in tick_shares]


def symmetric_limit(ends: Iterable[float | None]) -> float:
    """How far an axis of differences goes to both sides of 0, so that all `ends` fit."""
    furthest = max((abs(end) for end in ends if end is not None), default=0.0)
    return next((limit for limit in (0.05, 0.1, 0.25, 0.5, 1.0) if furthest <= limit), 1.0)


def separate_positions(targets: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the `wanted` ones, at least `gap` apart and inside [low, high] as far as they fit; same order."""
    order = sorted(range(len(targets)), key=lambda i: targets[i])
    positions = [0.0] * len(targets)
    floor = low
    for i in order:
        positions[i] = max(targets[i], floor)
        floor = positions[i] + gap
    ceiling = high
    for i in reversed(order):
        positions[i] = min(positions[i], ceiling)
        ceiling = positions[i] - gap
    return positions


def kind_class(kind: str | None) -> str:
    """The style class of a kind of selection; a name from data never becomes a class."""
    return f"k-{kind}" if kind in ("base", "closest", "random", "distant") else "k-other"


@dataclass(frozen=True, slots=True)
class PlotFrame:
    """The scales of one plot, `height` pixels tall; its methods place marks at data positions."""

    x: LinearScale
    y: LinearScale
    height: float

    @classmethod
    def from_domains(
        cls, x: tuple[float, float], y: tuple[float, float], height: float, inset: float = 0.0
    ) -> PlotFrame:
        """`inset`: percent of the width kept free at both ends."""
        return cls(LinearScale(x, (inset, 100 - inset)), LinearScale(y, (height, 0.0)), height)

    def grid(self, tick_marks: Iterable[Tick]) -> Markup:
        """Horizontal hairlines with their labels left of the plot."""
        lines = []
        for value, label in tick_marks:
            y = self.y(value)
            lines.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="grid"))
            lines.append(tag("text", label, x=0, y=y, dx=-8, dy="0.32em", class_="tick end"))
        return Markup("").join(lines)

    def x_axis(self, tick_marks: Iterable[Tick], title: str = "") -> Markup:
        """Labels of the x axis under the plot, and its title."""
        marks = [tag("line", x1="0%", x2="100%", y1=self.height, y2=self.height, class_="axis")]
        for value, label in tick_marks:
            x = f"{self.x(value):.2f}%"
            marks.append(tag("line", x1=x, x2=x, y1=self.height, y2=self.height + 4, class_="axis"))
            marks.append(tag("text", label, x=x, y=self.height + 18, class_="tick mid"))
        if title:
            marks.append(tag("text", title, x="50%", y=self.height + 37, class_="axis-title mid"))
        return Markup("").join(marks)

    def polyline(self, points: Sequence[tuple[float, float]], class_: str) -> Markup:
        """A line through data points; its width does not stretch."""
        coordinates = " ".join(f"{self.x(x):.3f},{self.y(y):.2f}" for x, y in points)
        return self._stretched(tag("polyline", points=coordinates, class_=class_))

    def band(self, points: Sequence[tuple[float, float, float]], class_: str) -> Markup:
        """The area between `low` and `high` of each (x, low, high)."""
        upper_edge = [f"{self.x(x):.3f},{self.y(high):.2f}" for x, _, high in points]
        lower_edge = [f"{self.x(x):.3f},{self.y(low):.2f}" for x, low, _ in reversed(points)]
        return self._stretched(tag("polygon", points=" ".join(upper_edge + lower_edge), class_=class_))

    def _stretched(self, mark: Markup) -> Markup:
        return tag(
            "svg", mark, viewBox=f"0 0 100 {self.height:g}", preserveAspectRatio="none",
            width="100%", height=self.height, overflow="visible",
        )  # fmt: skip

    def reference_line(self, value: float, class_: str, low: float | None = None, high: float | None = None) -> Markup:
        """A horizontal line across the plot, with its interval as a ribbon where there is one."""
        marks = []
        if low is not None and high is not None:
            top = self.y(high)
            ribbon = max(self.y(low) - top, 0.5)
            marks.append(tag("rect", x="0%", width="100%", y=top, height=ribbon, class_=f"ribbon {class_}"))
        y = self.y(value)
        marks.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_=f"level {class_}"))
        return Markup("").join(marks)

    def dot(
        self, x: float, y: float, kind: str | None, description: str, class_: str = "", shift: float = 0.0
    ) -> Markup:
        """A mark shaped and colored by `kind`; `about` is what a pointer over it reads; `shift` in pixels."""
        shape = tag(
            "path", *([tag("title", description)] if description else []), d=_shape(kind),
            class_=f"dot {kind_class(kind)} {class_}".strip(),
            transform=f"translate({shift:g} 0)" if shift else None,
        )  # fmt: skip
        return tag("svg", shape, x=f"{self.x(x):.2f}%", y=self.y(y), overflow="visible")

    def interval_line(self, x: float, low: float, high: float, class_: str) -> Markup:
        """A vertical interval."""
        position = f"{self.x(x):.2f}%"
        return tag("line", x1=position, x2=position, y1=self.y(low), y2=self.y(high), class_=f"whisker {class_}")

    def right_labels(self, labels: Sequence[tuple[float, str, str]], gap: float = 15.0) -> Markup:
        """Names beside the right edge: (value, text, class), moved apart where they would touch."""
        heights = separate_positions([self.y(value) for value, _, _ in labels], gap, 2.0, self.height)
        return Markup("").join(
            tag("text", text, x="100%", y=y, dx=10, dy="0.32em", class_=f"name {class_}")
            for (_, text, class_), y in zip(labels, heights, strict=True)
        )

    def draw(self, marks: Iterable[Markup], description: str, bottom_margin: float = 44.0) -> Markup:
        """The plot: `about` is its text for those who do not see it, `below` the pixels kept under it for labels."""
        return tag(
            "svg", *marks, class_="plot", role="img", aria_label=description,
            width="100%", height=self.height + bottom_margin, overflow="visible",
        )  # fmt: skip


def interval_strip(
    value: float | None,
    low: float | None,
    high: float | None,
    x: LinearScale,
    kind: str | None,
    class_: str = "",
    reference: float | None = None,
    grid_values: Iterable[float] = (),
) -> Markup:
    """One row of a dot-and-interval chart, as tall as its place: grid at `at`, a dashed line at `reference`."""
    marks = [_upright(x(value), "grid") for value in grid_values]
    if reference is not None:
        marks.append(_upright(x(reference), "level k-base"))
    if low is not None and high is not None:
        span = {"x1": f"{x(low):.2f}%", "x2": f"{x(high):.2f}%"}
        marks.append(tag("line", **span, y1="50%", y2="50%", class_=f"whisker {kind_class(kind)}"))
    if value is not None:
        shape = tag("path", d=_shape(kind), class_=f"dot {kind_class(kind)} {class_}".strip())
        marks.append(tag("svg", shape, x=f"{x(value):.2f}%", y="50%", overflow="visible"))
    return tag("svg", *marks, class_="strip", aria_hidden="true", width="100%", height="100%", overflow="visible")


def difference_strip(value: float | None, low: float | None, high: float | None, limit: float) -> Markup:
    """`strip` of a difference on an axis of `symmetric` reach: 0 is dashed, and an interval is cut at its ends."""
    x = LinearScale((-limit, limit), (0.0, 100.0))
    low, high = (None if end is None else max(-limit, min(limit, end)) for end in (low, high))
    return interval_strip(value, low, high, x, "base", reference=0.0, grid_values=(-limit, limit))


def _upright(x: float, class_: str) -> Markup:
    return tag("line", x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1="0%", y2="100%", class_=class_)


def _shape(kind: str | None) -> str:
    return _SHAPES.get(kind or "", _OTHER_SHAPE)
