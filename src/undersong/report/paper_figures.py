"""JSR by axis and fraction, closest samples, beside random ones and the base: the layout of the paper's main table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from undersong.report import formatting
from undersong.report.figures.told import (
    ArmEstimate,
    arm_estimates,
    base_estimate,
    figure_verdict_filter,
    panel_title,
)
from undersong.report.paper_figures_common import draw_bar, draw_base_level, draw_legend, label_rate_axis, panel_axes
from undersong.results.schema import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRAYS = ("#868d95", "#a6adb4", "#c4c9ce", "#6c737b")
COLORS_BY_AXIS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a5a9e")


def draw_jsr_by_axis(results: Results) -> Figure | None:
    """A panel a model and modality of training, prompts in the same modality; None without a closest arm."""
    verdict_filter = figure_verdict_filter(results)
    if verdict_filter is None:
        return None
    estimates = [
        estimate
        for estimate in arm_estimates(results, verdict_filter)
        if estimate.prompt_modality == (estimate.arm.train_modality or "audio")
    ]
    estimates = [
        estimate for estimate in estimates if not estimate.arm.rule and estimate.arm.kind in ("closest", "random")
    ]
    panel_keys = list(dict.fromkeys((estimate.model, estimate.prompt_modality) for estimate in estimates))
    if not any(estimate.arm.kind == "closest" for estimate in estimates):
        return None
    several_models = len({model for model, _ in panel_keys}) > 1
    titles = [
        panel_title(model, several_models, f"trained on {modality}, {formatting.modality_label(modality)} prompts")
        for model, modality in panel_keys
    ]
    figure, panel_axes_list = panel_axes(titles)
    series = sorted(
        dict.fromkeys(_series_name(estimate, estimates) for estimate in estimates),
        key=lambda name: not name.startswith("random"),
    )
    for axes, (model, modality) in zip(panel_axes_list, panel_keys, strict=True):
        panel_estimates = [
            estimate for estimate in estimates if (estimate.model, estimate.prompt_modality) == (model, modality)
        ]
        _bars(axes, panel_estimates, estimates, series)
        draw_base_level(axes, base_estimate(results, verdict_filter, model, modality))
        axes.set_xlabel("share of the pool that was trained on")
    label_rate_axis(panel_axes_list[0], verdict_filter.rate_label)
    draw_legend(figure, panel_axes_list)
    return figure


def _series_name(estimate: ArmEstimate, estimates: Sequence[ArmEstimate]) -> str:
    """By axis; random draws are alike whatever the axis, so those of one axis need not name it."""
    same_axis = len({other.arm.axis for other in estimates if other.arm.kind == estimate.arm.kind}) == 1
    return (
        "random"
        if estimate.arm.kind == "random" and same_axis
        else f"{estimate.arm.kind}, {estimate.arm.axis or 'no axis'}"
    )


def _bars(
    axes: Axes, panel_estimates: Sequence[ArmEstimate], estimates: Sequence[ArmEstimate], series: Sequence[str]
) -> None:
    amounts = list(dict.fromkeys(estimate.arm.amount for estimate in panel_estimates))
    width = 0.8 / len(series)
    axis_names = list(dict.fromkeys(axis for name in series if (axis := name.partition(", ")[2])))
    for i, name in enumerate(series):
        kind, _, axis = name.partition(", ")
        palette = COLORS_BY_AXIS if kind == "closest" else GRAYS
        color = palette[axis_names.index(axis) % len(palette)] if axis in axis_names else None
        for x, amount in enumerate(amounts):
            matching = next(
                (
                    estimate
                    for estimate in panel_estimates
                    if _series_name(estimate, estimates) == name and estimate.arm.amount == amount
                ),
                None,
            )
            if matching is not None:
                bar_position = x + (i - (len(series) - 1) / 2) * width
                draw_bar(axes, bar_position, matching.estimate, matching.arm.kind, 0.9 * width, name, color)
    axes.set_xticks(range(len(amounts)), amounts)
