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
    """Return one escaped element. `class_` sets class, `stroke_width` sets stroke-width; None omits an attribute."""
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
    """Linear scale from `domain` to `range`; a domain of one value maps to the middle."""

    domain: tuple[float, float]
    range: tuple[float, float]

    def __call__(self, value: float) -> float:
        """Values outside the domain go on in a line, uncut."""
        (low, high), (start, end) = self.domain, self.range
        share = 0.5 if high == low else (value - low) / (high - low)
        return start + share * (end - start)


def ticks(low: float, high: float, target_count: int = 5) -> list[float]:
    """Return round values from `low` to `high`, 1, 2 or 5 times a power of ten apart; round ends are included."""
    if high <= low:
        return [low]
    rough = (high - low) / target_count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def percent_axis(highest: float) -> tuple[float, list[Tick]]:
    """Return the end of an axis of shares that `highest` fits on, and its ticks in percent."""
    top, step = next(((top, step) for top, step in _SHARE_AXES if highest <= top), _SHARE_AXES[-1])
    tick_shares = [i * step for i in range(round(top / step) + 1)]
    return top, [(share, f"{100 * share:g}" + ("\u202f%" if share == tick_shares[-1] else "")) for share in tick_shares]


def symmetric_limit(ends: Iterable[float | None]) -> float:
    """Return the limit of an axis of differences, symmetric around 0, that all `ends` fit on."""
    furthest = max((abs(end) for end in ends if end is not None), default=0.0)
    return next((limit for limit in (0.05, 0.1, 0.25, 0.5, 1.0) if furthest <= limit), 1.0)


def separate_positions(targets: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions near `targets`, in the same order, at least `gap` apart and inside [low, high] if they fit.

    Args:
        targets: Preferred positions, in any order.
        gap: Smallest distance between two positions, in the unit of the positions.
        low: Lower end of the range.
        high: Upper end of the range, which takes precedence over `low` if there is too little room.
    """
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
        """Make a frame from the data ranges of both axes.

        Args:
            x: Smallest and largest data value on the x axis.
            y: Smallest and largest data value on the y axis.
            height: Height of the plot in pixels.
            inset: Percent of the width kept free at the left and right end.
        """
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
        """Draw a horizontal line across the plot, with its interval as a ribbon if it has one.

        Args:
            value: Data value of the line.
            class_: CSS class of line and ribbon.
            low: Lower end of the interval, or None.
            high: Upper end of the interval, or None.
        """
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
        """Draw a mark at a data position, with shape and color by selection kind.

        Args:
            x: Data value on the x axis.
            y: Data value on the y axis.
            kind: Selection kind of the arm, or None.
            description: Tooltip of the mark; empty for none.
            class_: Additional CSS class.
            shift: Horizontal offset in pixels.
        """
        shape = tag(
            "path", *([tag("title", description)] if description else []), d=_shape(kind),
            class_=f"dot {kind_class(kind)} {class_}".strip(),
            transform=f"translate({shift:g} 0)" if shift else None,
        )  # fmt: skip
        return tag("svg", shape, x=f"{self.x(x):.2f}%", y=self.y(y), overflow="visible")

    def interval_line(self, x: float, low: float, high: float, class_: str) -> Markup:
        """Draw a vertical interval.

        Args:
            x: Data value on the x axis.
            low: Lower end on the y axis.
            high: Upper end on the y axis.
            class_: CSS class that sets the color.
        """
        position = f"{self.x(x):.2f}%"
        return tag("line", x1=position, x2=position, y1=self.y(low), y2=self.y(high), class_=f"whisker {class_}")

    def right_labels(self, labels: Sequence[tuple[float, str, str]], gap: float = 15.0) -> Markup:
        """Place labels (value, text, class) at the right edge, moved apart where they would overlap."""
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
    """Draw one row of a dot-and-interval chart, which fills the height of its container.

    Args:
        value: Data value of the dot; None for no dot.
        low: Lower end of the interval; None for no interval.
        high: Upper end of the interval; None for no interval.
        x: Scale from data values to percent of the width.
        kind: Selection kind of the arm, which sets shape and color.
        class_: Additional CSS class of the dot.
        reference: Data value of a dashed line; None for no line.
        grid_values: Data values of the grid lines.
    """
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
    """Draw a difference with its interval on an axis from -limit to limit, with a dashed line at 0.

    Args:
        value: The difference; None for no dot.
        low: Lower end of the interval, cut off at -limit; None for no interval.
        high: Upper end of the interval, cut off at limit; None for no interval.
        limit: End of the axis, as from `symmetric_limit`.
    """
    x = LinearScale((-limit, limit), (0.0, 100.0))
    low, high = (None if end is None else max(-limit, min(limit, end)) for end in (low, high))
    return interval_strip(value, low, high, x, "base", reference=0.0, grid_values=(-limit, limit))


def summary_strip(
    value: float,
    interval: tuple[float | None, float | None],
    prediction: tuple[float | None, float | None],
    limit: float,
) -> Markup:
    """Draw the last row of a forest plot: a diamond from end to end of the interval, and the prediction interval.

    Args:
        value: The mean difference, the middle of the diamond.
        interval: Ends of its interval; without them a dot is drawn.
        prediction: Ends of the prediction interval, drawn as a line behind the diamond; None for no line.
        limit: End of the axis, as from `symmetric_limit`.
    """
    x = LinearScale((-limit, limit), (0.0, 100.0))
    low, high = (None if end is None else max(-limit, min(limit, end)) for end in interval)
    start, end = (None if end is None else max(-limit, min(limit, end)) for end in prediction)
    dot = value if low is None or high is None else None
    strip = interval_strip(dot, start, end, x, "base", reference=0.0, grid_values=(-limit, limit))
    if low is None or high is None:
        return strip
    corners = f"{x(low):.3f},5 {x(value):.3f},0 {x(high):.3f},5 {x(value):.3f},10"
    diamond = tag(
        "svg", tag("polygon", points=corners, class_="diamond"), viewBox="0 0 100 10", preserveAspectRatio="none",
        width="100%", height="50%", y="25%", overflow="visible",
    )  # fmt: skip
    return tag(
        "svg", strip, diamond, class_="strip", aria_hidden="true", width="100%", height="100%", overflow="visible"
    )


def _upright(x: float, class_: str) -> Markup:
    return tag("line", x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1="0%", y2="100%", class_=class_)


def _shape(kind: str | None) -> str:
    return _SHAPES.get(kind or "", _OTHER_SHAPE)
