"""The base beside closest, random and distant data: what proximity does, and what distant filtering brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from undersong.report import words
from undersong.report.figures.drawing import WIDTH, bar, legend, level, ordered, panels, rates
from undersong.report.figures.told import base, shown, title, told
from undersong.report.schema import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(results: Results) -> Figure | None:
    """A panel a model and modality of training, a group an axis and fraction; None without fine-tuned arms."""
    given = shown(results)
    if given is None:
        return None
    every = [one for one in told(results, given) if one.asked == (one.arm.train_modality or "audio")]
    if not every:
        return None
    places = list(dict.fromkeys((one.model, one.asked) for one in every))
    many = len({model for model, _ in places}) > 1
    names = [title(model, many, f"trained on {m}, {words.spoken(m)} prompts") for model, m in places]
    most = max(len({(one.arm.axis, one.arm.amount) for one in every if one.model == model}) for model, _ in places)
    figure, drawn = panels(names, across=2, wide=max(WIDTH, 0.62 * most))
    axes_named = list(dict.fromkeys(one.arm.axis for one in every))
    every.sort(key=lambda one: (axes_named.index(one.arm.axis), one.arm.fraction or 0.0))
    kinds = ordered([one.arm.kind for one in every])
    width = 0.8 / len(kinds)
    for axes, (model, modality) in zip(drawn, places, strict=True):
        here = [one for one in every if (one.model, one.asked) == (model, modality)]
        groups = list(dict.fromkeys((one.arm.axis or "", one.arm.amount) for one in here))
        for one in here:
            x = groups.index((one.arm.axis or "", one.arm.amount))
            place = x + (kinds.index(one.arm.kind) - (len(kinds) - 1) / 2) * width
            bar(axes, place, one.number, one.arm.kind, 0.9 * width, one.arm.kind)
        level(axes, base(results, given, model, modality))
        axes.set_xticks(range(len(groups)), [f"{axis}\n{amount}" for axis, amount in groups])
    rates(drawn[0], given.rate)
    legend(figure, drawn)
    return figure
