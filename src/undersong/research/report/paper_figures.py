"""Figures in the layout of the published paper, drawn with matplotlib as PDF and PNG: JSR by axis and fraction, by
selection kind, by training modality, and the refusal gap by layer.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.escaping import escape_unprintable
from undersong.pages import formatting
from undersong.report.summary import arm_summaries
from undersong.research.report.paper_figures_common import (
    COLORS,
    OTHER_COLOR,
    WIDTH,
    ArmEstimate,
    arm_estimates,
    base_estimate,
    draw_bar,
    draw_base_level,
    draw_legend,
    figure_verdict_filter,
    label_rate_axis,
    matplotlib_style,
    ordered_kinds,
    panel_axes,
    panel_title,
)
from undersong.research.report.refusal_gap import ArmGapCurve, arm_gap_curves
from undersong.results.schema import Results, parse_results
from undersong.store.atomic import write_atomic
from undersong.types import UndersongError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


GRAYS = ("#868d95", "#a6adb4", "#c4c9ce", "#6c737b")
COLORS_BY_AXIS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a5a9e")


def draw_jsr_by_axis(results: Results) -> Figure | None:
    """Draw one panel per model and training modality, with prompts in the same modality; None without a closest arm."""
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
    """Return the name of a series, which is its axis; random draws on a single axis need no name."""
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


def draw_jsr_by_kind(results: Results) -> Figure | None:
    """Draw one panel per model and training modality, grouped by axis and fraction; None without tuned arms."""
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


LINE_STYLES = {"audio": ("o", "-"), "text": ("s", "--")}


def draw_jsr_by_modality(results: Results) -> Figure | None:
    """Draw one panel per model, axis and prompt modality, for closest samples; base and fractions are on the x axis.

    None if arms were not trained on both modalities.
    """
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


def draw_refusal_gap(results: Results) -> Figure | None:
    """Draw one row per model, axis, amount and training modality; None if the mechanism was not measured."""
    gap_curves = (
        arm_gap_curves(results.mechanism.layer_measurements, arm_summaries(results))
        if results.mechanism is not None
        else []
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
        panel_title(
            "",
            False,
            *(part for part, is_varying in zip(panel_group, varying, strict=True) if is_varying and part),
            f"trained on {train_modality}, {formatting.modality_label(modality)} prompts",
        )
        for panel_group, train_modality, modality in panel_keys
    ]
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


FIGURES = {
    "jsr-by-axis-and-fraction": draw_jsr_by_axis,
    "base-closest-random-distant": draw_jsr_by_kind,
    "audio-against-text": draw_jsr_by_modality,
    "refusal-gap-by-layer": draw_refusal_gap,
}


def write_figures(results: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write the figures and return their paths; equal results give equal bytes.

    Raises UndersongError for invalid results, or if there is nothing to draw.
    """
    parsed, output_folder = parse_results(_drawable(results)), Path(folder)
    if output_folder.exists() and not output_folder.is_dir():
        raise UndersongError(f"{output_folder} is a file; give a folder for the figures.")
    paths = []
    with matplotlib_style():
        for name, draw in FIGURES.items():
            figure = draw(parsed)
            if figure is None:
                continue
            output_folder.mkdir(parents=True, exist_ok=True)
            for extension, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
                file = io.BytesIO()
                figure.savefig(file, format=extension, metadata=metadata)
                write_atomic(output_folder / f"{name}.{extension}", file.getvalue())
                paths.append(output_folder / f"{name}.{extension}")
    if not paths:
        raise UndersongError(
            f"{parsed.study.name} has no fine-tuned arm that was evaluated on harmful prompts, so nothing is drawn."
        )
    return paths


def _drawable(content: Any) -> Any:
    """Return content with unprintable characters of all texts escaped, because fonts have no glyphs for them."""
    if isinstance(content, Mapping):
        return {_drawable(key): _drawable(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_drawable(value) for value in content]
    return escape_unprintable(content) if isinstance(content, str) else content
