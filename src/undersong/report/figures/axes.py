"""JSR by axis and fraction, closest samples, beside random ones and the base: the layout of the paper's main table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from undersong.report import words
from undersong.report.figures.drawing import bar, legend, level, panels, rates
from undersong.report.figures.told import Told, base, shown, title, told
from undersong.report.schema import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREYS = ("#868d95", "#a6adb4", "#c4c9ce", "#6c737b")
SHADES = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a5a9e")


def draw(results: Results) -> Figure | None:
    """A panel a model and modality of training, prompts in the same modality; None without a closest arm."""
    given = shown(results)
    if given is None:
        return None
    every = [one for one in told(results, given) if one.asked == (one.arm.train_modality or "audio")]
    every = [one for one in every if not one.arm.rule and one.arm.kind in ("closest", "random")]
    places = list(dict.fromkeys((one.model, one.asked) for one in every))
    if not any(one.arm.kind == "closest" for one in every):
        return None
    many = len({model for model, _ in places}) > 1
    names = [title(model, many, f"trained on {m}, {words.spoken(m)} prompts") for model, m in places]
    figure, drawn = panels(names)
    series = sorted(dict.fromkeys(_series(one, every) for one in every), key=lambda name: not name.startswith("random"))
    for axes, (model, modality) in zip(drawn, places, strict=True):
        here = [one for one in every if (one.model, one.asked) == (model, modality)]
        _bars(axes, here, every, series)
        level(axes, base(results, given, model, modality))
        axes.set_xlabel("share of the pool that was trained on")
    rates(drawn[0], given.rate)
    legend(figure, drawn)
    return figure


def _series(one: Told, every: Sequence[Told]) -> str:
    """By axis; random draws are alike whatever the axis, so those of one axis need not name it."""
    alike = len({other.arm.axis for other in every if other.arm.kind == one.arm.kind}) == 1
    return "random" if one.arm.kind == "random" and alike else f"{one.arm.kind}, {one.arm.axis or 'no axis'}"


def _bars(axes: Axes, here: Sequence[Told], every: Sequence[Told], series: Sequence[str]) -> None:
    amounts = list(dict.fromkeys(one.arm.amount for one in here))
    width = 0.8 / len(series)
    named = list(dict.fromkeys(axis for name in series if (axis := name.partition(", ")[2])))
    for i, name in enumerate(series):
        kind, _, axis = name.partition(", ")
        shades = SHADES if kind == "closest" else GREYS
        colour = shades[named.index(axis) % len(shades)] if axis in named else None
        for x, amount in enumerate(amounts):
            found = next((one for one in here if _series(one, every) == name and one.arm.amount == amount), None)
            if found is not None:
                place = x + (i - (len(series) - 1) / 2) * width
                bar(axes, place, found.number, found.arm.kind, 0.9 * width, name, colour)
    axes.set_xticks(range(len(amounts)), amounts)
