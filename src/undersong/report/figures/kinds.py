"""The base beside closest, random and distant data: what proximity does, and what distant filtering brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from undersong.report import formatting
from undersong.report.figures.told import arm_estimates, base_estimate, figure_verdict_filter, panel_title
from undersong.report.paper_figures_common import (
    WIDTH,
    draw_bar,
    draw_base_level,
    draw_legend,
    label_rate_axis,
    ordered_kinds,
    panel_axes,
)
from undersong.results.schema import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_jsr_by_kind(results: Results) -> Figure | None:
    """A panel a model and modality of training, a group an axis and fraction; None without fine-tuned arms."""
    verdict_filter = figure_verdict_filter(results)
    if verdict_filter is None:
        return None
    estimates = [
        estimate
        for estimate in arm_estimates(results, verdict_filter)
        if estimate.prompt_modality == (estimate.arm.train_modality or "audio")
    ]
    if not estimates:
        return None
    panel_keys = list(dict.fromkeys((estimate.model, estimate.prompt_modality) for estimate in estimates))
    several_models = len({model for model, _ in panel_keys}) > 1
    titles = [
        panel_title(model, several_models, f"trained on {m}, {formatting.modality_label(m)} prompts")
        for model, m in panel_keys
    ]
    max_groups = max(
        len({(estimate.arm.axis, estimate.arm.amount) for estimate in estimates if estimate.model == model})
        for model, _ in panel_keys
    )
    figure, panel_axes_list = panel_axes(titles, max_columns=2, panel_width=max(WIDTH, 0.62 * max_groups))
    axis_names = list(dict.fromkeys(estimate.arm.axis for estimate in estimates))
    estimates.sort(key=lambda estimate: (axis_names.index(estimate.arm.axis), estimate.arm.fraction or 0.0))
    kinds = ordered_kinds([estimate.arm.kind for estimate in estimates])
    width = 0.8 / len(kinds)
    for axes, (model, modality) in zip(panel_axes_list, panel_keys, strict=True):
        panel_estimates = [
            estimate for estimate in estimates if (estimate.model, estimate.prompt_modality) == (model, modality)
        ]
        groups = list(dict.fromkeys((estimate.arm.axis or "", estimate.arm.amount) for estimate in panel_estimates))
        for estimate in panel_estimates:
            x = groups.index((estimate.arm.axis or "", estimate.arm.amount))
            bar_position = x + (kinds.index(estimate.arm.kind) - (len(kinds) - 1) / 2) * width
            draw_bar(axes, bar_position, estimate.estimate, estimate.arm.kind, 0.9 * width, estimate.arm.kind)
        draw_base_level(axes, base_estimate(results, verdict_filter, model, modality))
        axes.set_xticks(range(len(groups)), [f"{axis}\n{amount}" for axis, amount in groups])
    label_rate_axis(panel_axes_list[0], verdict_filter.rate_label)
    draw_legend(figure, panel_axes_list)
    return figure
