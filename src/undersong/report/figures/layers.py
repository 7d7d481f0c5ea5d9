"""The refusal gap by layer before and after fine-tuning, asked in writing (left) and by voice, as in the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from undersong.report import formatting
from undersong.report.figures.told import panel_title
from undersong.report.layers import ArmGapCurve, arm_gap_curves
from undersong.report.paper_figures_common import COLORS, OTHER_COLOR, draw_legend, panel_axes
from undersong.report.summary import arm_summaries
from undersong.results.schema import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_refusal_gap(results: Results) -> Figure | None:
    """A row a model, axis, amount and modality of training; None where the mechanism was not measured."""
    gap_curves = (
        arm_gap_curves(results.mechanism.curves, arm_summaries(results)) if results.mechanism is not None else []
    )
    rows = list(dict.fromkeys((curve.panel_group, curve.train_modality) for curve in gap_curves))
    if not rows:
        return None
    modalities = [modality for modality in ("text", "audio") if any(curve.modality == modality for curve in gap_curves)]
    panel_keys = [
        (panel_group, train_modality, modality) for panel_group, train_modality in rows for modality in modalities
    ]
    varying = [len({panel_group[i] for panel_group, _ in rows}) > 1 for i in range(3)]
    titles = [
        panel_title("", False, *(part for part, is_varying in zip(panel_group, varying, strict=True) if is_varying and part),
              f"trained on {train_modality}, {formatting.modality_label(modality)} prompts")
        for panel_group, train_modality, modality in panel_keys
    ]  # fmt: skip
    figure, panel_axes_list = panel_axes(titles, max_columns=len(modalities))
    for axes, (panel_group, train_modality, modality) in zip(panel_axes_list, panel_keys, strict=True):
        panel_curves = [
            gap_curve
            for gap_curve in gap_curves
            if (gap_curve.panel_group, gap_curve.train_modality, gap_curve.modality)
            == (panel_group, train_modality, modality)
        ]
        _draw_curves(axes, panel_curves)
        axes.set_xlabel("layer of the language model")
    for axes in panel_axes_list[:: len(modalities)]:
        axes.set_ylabel("refusal gap")
    draw_legend(figure, panel_axes_list)
    return figure


def _draw_curves(axes: Axes, gap_curves: list[ArmGapCurve]) -> None:
    from matplotlib.ticker import MaxNLocator

    for curve in gap_curves[:1]:
        base_points = [(level.layer, level.gap_before) for level in curve.layers if level.gap_before is not None]
        if base_points:
            axes.plot(
                *zip(*base_points, strict=True), color=COLORS["base"], linestyle="--", linewidth=1.2, label="before"
            )
    for curve in gap_curves:
        color = COLORS.get(curve.kind, OTHER_COLOR)
        layers = [level.layer for level in curve.layers]
        axes.plot(layers, [v.gap for v in curve.layers], color=color, linewidth=1.4, label=f"after, {curve.kind}")
        intervals = [(level.layer, level.low, level.high) for level in curve.layers if level.low is not None]
        if len(intervals) > 1:
            xs, lows, highs = zip(*intervals, strict=True)
            axes.fill_between(xs, lows, highs, color=color, alpha=0.12, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
