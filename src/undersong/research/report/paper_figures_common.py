"""Shared parts of the paper figures: matplotlib style, colors, bars and legends, and the arm estimates that are
drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from undersong.pages import formatting
from undersong.report.summary import (
    ArmSummary,
    Estimate,
    VerdictFilter,
    arm_summaries,
    base_runs,
    default_verdict_filter,
    estimate_rate,
    kind_order,
)
from undersong.results.schema import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLORS = {"base": "#191c20", "closest": "#d55e00", "random": "#868d95", "distant": "#0072b2"}
OTHER_COLOR = "#8a5a9e"
HATCHES = {"closest": "", "random": "....", "distant": "////"}  # kinds stay apart in print without color
WIDTH, HEIGHT = 3.3, 2.5  # inches of one panel: a column of a paper


@contextmanager
def matplotlib_style() -> Iterator[None]:
    """Settings of matplotlib while figures are drawn, put back after: type stays type in a PDF, names stay names."""
    import matplotlib

    settings: dict[Any, Any] = {
        "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.titleweight": "bold",
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y",
        "grid.color": "#e2e5e8", "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 7.5,
        "pdf.fonttype": 42, "savefig.dpi": 200, "savefig.bbox": "tight", "hatch.linewidth": 0.5,
        "text.parse_math": False, "text.usetex": False, "errorbar.capsize": 2, "figure.constrained_layout.use": True,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield


def panel_axes(titles: Sequence[str], max_columns: int = 3, panel_width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure with a panel a title, in rows of `across`, `wide` inches each, on one scale of y."""
    from matplotlib.figure import Figure

    columns = min(max_columns, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(panel_width * columns, HEIGHT * rows))
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    all_axes = list(axes.flat)
    for panel in all_axes[len(titles) :]:
        panel.set_visible(False)
    for panel, title in zip(all_axes, titles, strict=False):
        panel.set_title(title.replace(" · ", "\n"), loc="left")
    return figure, all_axes[: len(titles)]


def label_rate_axis(axes: Axes, label: str) -> None:
    """Label the y axis in percent, starting at 0."""
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
    axes.set_ylabel(f"{label} (%)")


def draw_bar(
    axes: Axes, x: float, number: Estimate, kind: str, width: float, label: str, color: str | None = None
) -> None:
    """Draw a bar with its 95 % interval, if it has one.

    Args:
        axes: Matplotlib axes.
        x: Center of the bar, in data coordinates.
        number: Mean and interval, in the units of the y axis.
        kind: Selection kind of the arm, which sets hatch and default color.
        width: Width of the bar, in data coordinates.
        label: Entry of the legend.
        color: Fill color. None: the color of the kind.
    """
    axes.bar(
        x, number.mean, width, color=color or COLORS.get(kind, OTHER_COLOR), hatch=HATCHES.get(kind, "xx"),
        edgecolor="white", linewidth=0.5, label=label,
    )  # fmt: skip
    if number.low is not None and number.high is not None:
        ends = [[max(0.0, number.mean - number.low)], [max(0.0, number.high - number.mean)]]
        axes.errorbar(x, number.mean, yerr=ends, color="#191c20", linewidth=0.9)


def draw_base_level(axes: Axes, number: Estimate | None) -> None:
    """The base, across a panel."""
    if number is None:
        return
    axes.axhline(number.mean, color=COLORS["base"], linestyle="--", linewidth=0.9, label="base")
    if number.low is not None and number.high is not None:
        axes.axhspan(number.low, number.high, color=COLORS["base"], alpha=0.07, linewidth=0)


def ordered_kinds(kinds: Sequence[str]) -> list[str]:
    """Return each kind once: base, closest, random, distant, then others in the given order."""
    return sorted(dict.fromkeys(kinds), key=kind_order)


def draw_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One for all panels, each name once, under them."""
    handles_by_label = {
        label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles_by_label.values(),
        handles_by_label.keys(),
        loc="outside lower center",
        ncols=max(1, min(4, len(handles_by_label))),
    )


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """An arm as one model has it (its runs are that model's), and its rate on prompts of one modality."""

    arm: ArmSummary
    model: str
    prompt_modality: str  # modality of the prompts
    estimate: Estimate


def figure_verdict_filter(results: Results) -> VerdictFilter | None:
    """Return the verdict filter of the figures, the same as the page's; None if no harmful set was measured."""
    return default_verdict_filter(results)


def arm_estimates(results: Results, verdict_filter: VerdictFilter) -> list[ArmEstimate]:
    """Return the estimates of every arm on each model, in the order of the page."""
    return list(_iterate_arm_estimates(results, verdict_filter))


def _iterate_arm_estimates(results: Results, verdict_filter: VerdictFilter) -> Iterator[ArmEstimate]:
    for arm in arm_summaries(results):
        for model in dict.fromkeys(run.model for run in arm.runs):
            model_arm = replace(arm, runs=tuple(run for run in arm.runs if run.model == model))
            for prompt_modality in ("audio", "text"):
                rate_estimate = estimate_rate(
                    verdict_filter.run_rates(model_arm.runs_at(model_arm.last_step), prompt_modality)
                )
                if rate_estimate is not None:
                    yield ArmEstimate(model_arm, model or "the model", prompt_modality, rate_estimate)


def base_estimate(results: Results, verdict_filter: VerdictFilter, model: str, prompt_modality: str) -> Estimate | None:
    """Return the rate of one untuned model; None if it was not measured on prompts of this modality.

    Args:
        results: Parsed results of the study.
        verdict_filter: Prompt set, system prompt and judge of the rate.
        model: Reference of the model.
        prompt_modality: `audio` or `text`.
    """
    runs = [run for run in base_runs(results) if (run.model or "the model") == model]
    return estimate_rate(verdict_filter.run_rates(runs, prompt_modality))


def panel_title(model: str, show_model: bool, *parts: str) -> str:
    """Return the title of a panel, made of the parts that differ between panels."""
    return formatting.capitalize_first(" · ".join(filter(None, (*([model] if show_model else []), *parts))))
