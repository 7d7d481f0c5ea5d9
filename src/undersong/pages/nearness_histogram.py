"""Histograms of distances to harm: the data, ordinary data, and the harm set against itself, on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.data_view import DATA, HARM, ORDINARY
from undersong.pages.svg import PlotFrame, tag, ticks

BINS, HEIGHT = 48, 56
TITLES = {DATA: "Your data", ORDINARY: "Ordinary data", HARM: "Harmful requests, each to the nearest other one"}
COLORS = {DATA: "k-distant", ORDINARY: "k-random", HARM: "k-closest"}


@dataclass(frozen=True, slots=True)
class SeriesPicture:
    """Histogram of one series, with its title."""

    title: str
    count: int
    picture: Markup


def draw_histogram(series: Mapping[str, np.ndarray], threshold: float | None) -> tuple[SeriesPicture, ...]:
    """Draw one histogram for each series, all on the same scale of distances; a bar is a share of its series.

    Args:
        series: Distances by DATA, ORDINARY and HARM; those that are not finite are left out.
        threshold: Distance to mark; None: none.
    """
    finite = {name: values[np.isfinite(values)] for name in TITLES if (values := series.get(name)) is not None}
    finite = {name: values for name, values in finite.items() if len(values)}
    if not finite:
        return ()
    low, high = min(float(v.min()) for v in finite.values()), max(float(v.max()) for v in finite.values())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    last = list(finite)[-1]
    return tuple(
        SeriesPicture(TITLES[name], len(values), _draw(name, values, edges, threshold, with_axis=name == last))
        for name, values in finite.items()
    )


def _draw(name: str, values: np.ndarray, edges: np.ndarray, threshold: float | None, with_axis: bool) -> Markup:
    counts = np.histogram(values, edges)[0]
    shares = counts / len(values)
    frame = PlotFrame.from_domains((float(edges[0]), float(edges[-1])), (0.0, float(shares.max())), HEIGHT)
    x_ticks = ticks(float(edges[0]), float(edges[-1]), 5)
    decimals = formatting.decimals_needed(x_ticks)
    labels = [(value, formatting.decimal(value, decimals)) for value in x_ticks] if with_axis else []
    marks = [frame.x_axis(labels, "distance to the nearest harmful request" if with_axis else "")]
    for left, right, count, share in zip(edges, edges[1:], counts, shares, strict=False):
        if not count:
            continue
        x0, x1, top = frame.x(float(left)), frame.x(float(right)), min(frame.y(float(share)), HEIGHT - 1.5)
        title = f"{left:.3g} to {right:.3g}: {count:,} of {len(values):,} ({100 * share:.1f} %)"
        marks.append(
            tag(
                "rect", tag("title", title), x=f"{x0:.2f}%", width=f"{max(x1 - x0 - 0.25, 0.1):.2f}%", y=top,
                height=HEIGHT - top, class_=f"column {COLORS[name]}",
            )
        )  # fmt: skip
    if threshold is not None:
        x = f"{frame.x(threshold):.2f}%"
        marks.append(tag("line", x1=x, x2=x, y1=-8, y2=HEIGHT, class_="threshold"))
    quartiles = np.quantile(values, [0.25, 0.5, 0.75])
    text = f"{TITLES[name]}: {len(values):,} distances, quartiles " + ", ".join(f"{value:.3g}" for value in quartiles)
    return frame.draw(marks, f"{text}.", 44.0 if with_axis else 6.0)
