"""Trained on audio against trained on text, over the share of the pool: the paper's cross-modal figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from undersong.report import formatting
from undersong.report.figures.told import arm_estimates, base_estimate, figure_verdict_filter, panel_title
from undersong.report.paper_figures_common import COLORS, OTHER_COLOR, draw_legend, label_rate_axis, panel_axes
from undersong.results.schema import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE_STYLES = {"audio": ("o", "-"), "text": ("s", "--")}


def draw_jsr_by_modality(results: Results) -> Figure | None:
    """A panel a model, axis and modality of prompts; closest samples; x: base, then fractions.  None where arms were
    not trained on both."""
    verdict_filter = figure_verdict_filter(results)
    if verdict_filter is None:
        return None
    estimates = [
        estimate
        for estimate in arm_estimates(results, verdict_filter)
        if estimate.arm.kind == "closest" and estimate.arm.fraction is not None
    ]
    panel_keys = list(
        dict.fromkeys((estimate.model, estimate.arm.axis, estimate.prompt_modality) for estimate in estimates)
    )
    estimates_by_panel = {
        key: [
            estimate for estimate in estimates if (estimate.model, estimate.arm.axis, estimate.prompt_modality) == key
        ]
        for key in panel_keys
    }
    estimates_by_panel = {
        key: panel_estimates
        for key, panel_estimates in estimates_by_panel.items()
        if {"audio", "text"} <= {estimate.arm.train_modality for estimate in panel_estimates}
    }
    if not estimates_by_panel:
        return None
    models, axis_names = ({key[i] for key in estimates_by_panel} for i in (0, 1))
    titles = [
        panel_title(
            m,
            len(models) > 1,
            f"{a} axis" if len(axis_names) > 1 else "",
            f"{formatting.modality_label(prompt_modality)} prompts",
        )
        for m, a, prompt_modality in estimates_by_panel
    ]
    figure, panel_axes_list = panel_axes(titles, max_columns=2)
    for axes, ((model, _, prompt_modality), panel_estimates) in zip(
        panel_axes_list, estimates_by_panel.items(), strict=True
    ):
        amounts = list(
            dict.fromkeys(
                estimate.arm.amount
                for estimate in sorted(panel_estimates, key=lambda estimate: estimate.arm.fraction or 0.0)
            )
        )
        base_point = base_estimate(results, verdict_filter, model, prompt_modality)
        for modality, (mark, line) in LINE_STYLES.items():
            arm_points = [
                (1 + amounts.index(estimate.arm.amount), estimate.estimate)
                for estimate in panel_estimates
                if estimate.arm.train_modality == modality
            ]
            points = sorted([*([(0, base_point)] if base_point else []), *arm_points], key=lambda point: point[0])
            xs, means = [x for x, _ in points], [point_estimate.mean for _, point_estimate in points]
            ends = [
                [0.0 if n.low is None else max(0.0, n.mean - n.low) for _, n in points],
                [0.0 if n.high is None else max(0.0, n.high - n.mean) for _, n in points],
            ]
            color = COLORS["closest"] if modality == "audio" else OTHER_COLOR
            axes.errorbar(
                xs, means, yerr=ends, marker=mark, markersize=4, linestyle=line, color=color, linewidth=1.2,
                label=f"trained on {modality}",
            )  # fmt: skip
        axes.set_xticks(range(1 + len(amounts)), ["base", *amounts])
    label_rate_axis(panel_axes_list[0], verdict_filter.rate_label)
    draw_legend(figure, panel_axes_list)
    return figure
