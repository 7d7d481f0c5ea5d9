"""Trained on audio against trained on text, over the share of the pool: the paper's cross-modal figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from undersong.report import words
from undersong.report.figures.drawing import COLOURS, OTHER, legend, panels, rates
from undersong.report.figures.told import base, shown, title, told
from undersong.report.schema import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = {"audio": ("o", "-"), "text": ("s", "--")}


def draw(results: Results) -> Figure | None:
    """A panel a model, axis and modality of prompts; closest samples; x: base, then fractions.  None where arms were
    not trained on both."""
    given = shown(results)
    if given is None:
        return None
    every = [one for one in told(results, given) if one.arm.kind == "closest" and one.arm.fraction is not None]
    places = list(dict.fromkeys((one.model, one.arm.axis, one.asked) for one in every))
    both = {key: [o for o in every if (o.model, o.arm.axis, o.asked) == key] for key in places}
    both = {key: here for key, here in both.items() if {"audio", "text"} <= {o.arm.train_modality for o in here}}
    if not both:
        return None
    models, axes_named = ({key[i] for key in both} for i in (0, 1))
    names = [
        title(m, len(models) > 1, f"{a} axis" if len(axes_named) > 1 else "", f"{words.spoken(asked)} prompts")
        for m, a, asked in both
    ]
    figure, drawn = panels(names, across=2)
    for axes, ((model, _, asked), here) in zip(drawn, both.items(), strict=True):
        amounts = list(dict.fromkeys(one.arm.amount for one in sorted(here, key=lambda o: o.arm.fraction or 0.0)))
        start = base(results, given, model, asked)
        for modality, (mark, line) in MARKS.items():
            found = [(1 + amounts.index(o.arm.amount), o.number) for o in here if o.arm.train_modality == modality]
            points = sorted([*([(0, start)] if start else []), *found], key=lambda point: point[0])
            xs, means = [x for x, _ in points], [number.mean for _, number in points]
            ends = [
                [0.0 if n.low is None else max(0.0, n.mean - n.low) for _, n in points],
                [0.0 if n.high is None else max(0.0, n.high - n.mean) for _, n in points],
            ]
            colour = COLOURS["closest"] if modality == "audio" else OTHER
            axes.errorbar(
                xs, means, yerr=ends, marker=mark, markersize=4, linestyle=line, color=colour, linewidth=1.2,
                label=f"trained on {modality}",
            )  # fmt: skip
        axes.set_xticks(range(1 + len(amounts)), ["base", *amounts])
    rates(drawn[0], given.rate)
    legend(figure, drawn)
    return figure
