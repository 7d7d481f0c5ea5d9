"""The refusal gap by layer before and after fine-tuning, asked in writing (left) and by voice, as in the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from undersong.report import words
from undersong.report.figures.drawing import COLOURS, OTHER, legend, panels
from undersong.report.figures.told import title
from undersong.report.layers import Curve, curves
from undersong.report.schema import Results
from undersong.report.summary import arms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(results: Results) -> Figure | None:
    """A row a model, axis, amount and modality of training; None where the mechanism was not measured."""
    found = curves(results.mechanism.curves, arms(results)) if results.mechanism is not None else []
    rows = list(dict.fromkeys((curve.place, curve.train_modality) for curve in found))
    if not rows:
        return None
    asked = [m for m in ("text", "audio") if any(curve.modality == m for curve in found)]
    cells = [(place, trained, modality) for place, trained in rows for modality in asked]
    differs = [len({place[i] for place, _ in rows}) > 1 for i in range(3)]
    names = [
        title("", False, *(part for part, wanted in zip(place, differs, strict=True) if wanted and part),
              f"trained on {trained}, {words.spoken(modality)} prompts")
        for place, trained, modality in cells
    ]  # fmt: skip
    figure, drawn = panels(names, across=len(asked))
    for axes, (place, trained, modality) in zip(drawn, cells, strict=True):
        own = [c for c in found if (c.place, c.train_modality, c.modality) == (place, trained, modality)]
        _curves(axes, own)
        axes.set_xlabel("layer of the language model")
    for axes in drawn[:: len(asked)]:
        axes.set_ylabel("refusal gap")
    legend(figure, drawn)
    return figure


def _curves(axes: Axes, found: list[Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    for curve in found[:1]:
        before = [(level.layer, level.before) for level in curve.levels if level.before is not None]
        if before:
            axes.plot(*zip(*before, strict=True), color=COLOURS["base"], linestyle="--", linewidth=1.2, label="before")
    for curve in found:
        colour = COLOURS.get(curve.kind, OTHER)
        layers = [level.layer for level in curve.levels]
        axes.plot(layers, [v.gap for v in curve.levels], color=colour, linewidth=1.4, label=f"after, {curve.kind}")
        known = [(level.layer, level.low, level.high) for level in curve.levels if level.low is not None]
        if len(known) > 1:
            xs, lows, highs = zip(*known, strict=True)
            axes.fill_between(xs, lows, highs, color=colour, alpha=0.12, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
