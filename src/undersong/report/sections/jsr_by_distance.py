"""JSR at the last step against the mean distance of the training samples to harmful content, and the regression of JSR
rise on proximity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.svg import PlotFrame, Tick, kind_class, percent_axis, tag, ticks
from undersong.pages.tables import (
    NumberCell,
    Panel,
    PanelGroup,
    Table,
    jitter_offsets,
    number_cell,
    percent_cell,
    training_label,
)
from undersong.report.summary import (
    ArmSummary,
    Facet,
    VerdictFilter,
    arm_summaries,
    default_verdict_filter,
    estimate_rate,
    facets,
    kind_order,
    rate_name,
)
from undersong.results.schema import Results, RunResult
from undersong.results.schema_base import ValueWithInterval
from undersong.results.schema_outcomes import ProximityVsJsrRecord
from undersong.results.schema_screening import AxisScreening

HEIGHT = 232
MAX_NAMED_ARMS = 4  # largest number of arms with a name in the plot; more names would overlap


@dataclass(frozen=True, slots=True)
class JsrByDistance:
    """Section with a panel per facet and training modality, on spoken prompts if they were measured."""

    rate: str
    asked: str
    groups: tuple[PanelGroup, ...]
    by_distance: bool  # False if some distances are unknown and panels are by kind
    exact: bool  # False: distances are read from a histogram
    numbers: Table


def run_mean_distance(run: RunResult, arm: ArmSummary, screen: AxisScreening | None) -> float | None:
    """The mean distance of a run's training samples: its own, or as the screen's histogram has it for the arm."""
    return run.mean_distance if run.mean_distance is not None else histogram_mean_distance(arm, screen)


def histogram_mean_distance(arm: ArmSummary, screen: AxisScreening | None) -> float | None:
    """Return the mean distance of the arm's samples from the histogram of the axis, exact to the bin width.

    Closest selections are the k lowest distances of the pool, distant ones the k highest; random ones follow the pool.
    None without a histogram of the axis.
    """
    if screen is None or len(screen.histogram.edges) != len(screen.histogram.counts) + 1:
        return None
    edges, counts = np.asarray(screen.histogram.edges), np.asarray(screen.histogram.counts)
    middles, pool = (edges[1:] + edges[:-1]) / 2, float(counts.sum())
    k = pool if arm.kind == "random" else float(arm.k) if arm.k is not None else (arm.fraction or 0.0) * pool
    if not 0 < k <= pool or arm.kind not in ("closest", "distant", "random"):
        return None
    order = slice(None, None, -1) if arm.kind == "distant" else slice(None)
    cumulative = np.concatenate([[0.0], np.cumsum(counts[order])[:-1]])
    selected_counts = np.clip(k - cumulative, 0.0, counts[order])
    return float(selected_counts @ middles[order] / selected_counts.sum())


def build_jsr_by_distance(results: Results) -> JsrByDistance | None:
    """Build the section of JSR by distance; None if no arm was tuned or none was given harmful prompts."""
    verdict_filter, facet_list = default_verdict_filter(results), facets(results)
    if verdict_filter is None or not facet_list:
        return None
    modality = (
        "audio"
        if any(verdict_filter.run_rates(facet.base_runs + facet.arms[0].runs, "audio") for facet in facet_list)
        else "text"
    )
    run_rates = [
        run_rate
        for arm in arm_summaries(results)
        for run_rate in verdict_filter.run_rates(arm.runs_at(arm.last_step), modality)
    ]
    if not run_rates:
        return None
    bases = [estimate_rate(verdict_filter.run_rates(facet.base_runs, modality)) for facet in facet_list]
    ends = [base.high or base.mean for base in bases if base is not None]
    y_max = percent_axis(max([*(run_rate.rate for run_rate in run_rates), *ends]))[0]
    plots = [(facet, _distance_axis(facet, _facet_screening(facet, results))) for facet in facet_list]
    rows = tuple(
        row for facet, distance_axis in plots for row in _run_rows(facet, distance_axis, verdict_filter, modality)
    )
    head = (
        "Arm",
        "Base",
        "draw",
        "seed",
        "mean distance",
        f"{verdict_filter.rate_label}, % [95 % over prompts]",
        "n, prompts",
    )
    return JsrByDistance(
        rate=verdict_filter.rate_label,
        asked=formatting.modality_label(modality),
        groups=tuple(
            PanelGroup(facet.title, tuple(_distance_panels(facet, distance_axis, verdict_filter, modality, y_max)))
            for facet, distance_axis in plots
        ),
        by_distance=all(distance_axis.has_distances for _, distance_axis in plots),
        exact=all(run_rate.run.mean_distance is not None for run_rate in run_rates),
        numbers=Table(f"{verdict_filter.rate_label} of every run at its last step", head, rows, names=2),
    )


def _facet_screening(facet: Facet, results: Results) -> AxisScreening | None:
    """The screen of the facet's axis, by its own model where screens name one."""
    model_refs = {run.model for arm in facet.arms for run in arm.runs}
    axis_screenings = [screen for screen in results.screening if screen.axis == facet.axis]
    return next(
        (screen for screen in axis_screenings if screen.model in model_refs),
        axis_screenings[0] if axis_screenings else None,
    )


def _distance_panels(
    facet: Facet, distance_axis: DistanceAxis, verdict_filter: VerdictFilter, modality: str, top: float
) -> Iterable[Panel]:
    for train_modality in facet.train_modalities:
        members = [
            arm
            for arm in facet.arms_trained_on(train_modality)
            if verdict_filter.run_rates(arm.runs_at(arm.last_step), modality)
        ]
        if members:
            title = training_label(train_modality)
            numbered = len(members) > MAX_NAMED_ARMS
            key = tuple(f"{i} {arm.kind}" for i, arm in enumerate(members, 1)) if numbered else ()
            yield Panel(title, _distance_plot(facet, members, distance_axis, verdict_filter, modality, top, title), key)


@dataclass(frozen=True, slots=True)
class DistanceAxis:
    """The x axis: distances where every arm has one, else the kinds side by side."""

    domain: tuple[float, float]
    ticks: list[Tick]
    title: str
    positions: dict[tuple[str, int | None, int | None], float]  # by arm, draw and seed
    has_distances: bool

    def position(self, arm: ArmSummary, run: RunResult) -> float:
        """Return the position of a run on the axis: its mean cosine distance, or the place of its arm's kind."""
        return self.positions[arm.name, run.draw, run.seed]


def _distance_axis(facet: Facet, screen: AxisScreening | None) -> DistanceAxis:
    arm_runs = [(arm, run) for arm in facet.arms for run in arm.runs_at(arm.last_step)]
    distances = {(arm.name, run.draw, run.seed): run_mean_distance(run, arm, screen) for arm, run in arm_runs}
    positions = {key: value for key, value in distances.items() if value is not None}
    if len(positions) == len(distances):
        span = max(positions.values()) - min(positions.values()) or 0.1
        low, high = min(positions.values()) - 0.18 * span, max(positions.values()) + 0.18 * span
        tick_values = ticks(low, high, 4)
        x_ticks = [(value, formatting.decimal(value, formatting.decimals_needed(tick_values))) for value in tick_values]
        return DistanceAxis((low, high), x_ticks, "mean distance of the training samples", positions, True)
    kinds = sorted({arm.kind for arm in facet.arms}, key=kind_order)
    positions = {(arm.name, run.draw, run.seed): float(kinds.index(arm.kind)) for arm, run in arm_runs}
    x_ticks = [(float(i), kind) for i, kind in enumerate(kinds)]
    return DistanceAxis((-0.5, len(kinds) - 0.5), x_ticks, "kind of selection", positions, False)


def _run_rows(
    facet: Facet, distance_axis: DistanceAxis, verdict_filter: VerdictFilter, modality: str
) -> Iterable[tuple[str | NumberCell, ...]]:
    for arm in facet.arms:
        for cell in verdict_filter.run_rates(arm.runs_at(arm.last_step), modality):
            run = cell.run
            base = ", ".join(str(part) for part in (run.model, run.base_seed) if part is not None)
            distance_cell = (
                number_cell(distance_axis.position(arm, run))
                if distance_axis.has_distances
                else NumberCell(formatting.MISSING, None)
            )
            run_cells = (number_cell(value, decimals=0) for value in (run.draw, run.seed))
            rate = percent_cell(cell.rate, cell.set_rate.low, cell.set_rate.high)
            yield arm.label, base or formatting.MISSING, *run_cells, distance_cell, rate, f"{cell.set_rate.n:,}"


def _distance_plot(
    facet: Facet,
    members: Sequence[ArmSummary],
    distance_axis: DistanceAxis,
    verdict_filter: VerdictFilter,
    modality: str,
    top: float,
    title: str,
) -> Markup:
    frame = PlotFrame.from_domains(distance_axis.domain, (0.0, top), HEIGHT)
    marks = [frame.grid(percent_axis(top)[1]), frame.x_axis(distance_axis.ticks, distance_axis.title)]
    base = estimate_rate(verdict_filter.run_rates(facet.base_runs, modality))
    if base is not None:
        marks.append(frame.reference_line(base.mean, "k-base", base.low, base.high))
        marks.append(frame.right_labels([(base.mean, f"base {formatting.percent_number(base.mean)}", "k-base")]))
    arm_texts = []
    for arm_number, arm in enumerate(members, 1):
        cells = verdict_filter.run_rates(arm.runs_at(arm.last_step), modality)
        rates, positions = [cell.rate for cell in cells], [distance_axis.position(arm, cell.run) for cell in cells]
        shifts = jitter_offsets([str(i) for i in range(len(cells))], 7.0 if len(set(positions)) == 1 else 0.0)
        for i, (x, rate) in enumerate(zip(positions, rates, strict=True)):
            description = f"{arm.label}, run {i + 1}: {formatting.percent(rate)}"
            marks.append(frame.dot(x, rate, arm.kind, description, "run-dot", shifts[str(i)]))
        middle = sum(positions) / len(positions)
        is_named = len(members) <= MAX_NAMED_ARMS
        label_offset = (
            0.0 if is_named else 9.0 * (arm_number - (len(members) + 1) / 2)
        )  # pixels: numbers of one place side by side
        marks.append(
            _arm_label(frame, middle, arm.kind if is_named else str(arm_number), arm.kind, rates, top, label_offset)
        )
        distance_text = f" at {formatting.decimal(middle)}" if distance_axis.has_distances else ""
        arm_texts.append(f"{arm.kind}{distance_text}: {formatting.percent(sum(rates) / len(rates))}")
    return frame.draw(
        marks,
        f"{title}: {verdict_filter.rate_label} at the last step against {distance_axis.title}. {'; '.join(arm_texts)}.",
    )


def _arm_label(
    frame: PlotFrame, x: float, name: str, kind: str, rates: Sequence[float], top: float, label_offset: float
) -> Markup:
    """Place the arm's name over its dots, or under them if they are near the top."""
    y = frame.y(max(rates)) - 13 if max(rates) < 0.85 * top else frame.y(min(rates)) + 22
    return tag(
        "text", name, x=f"{frame.x(x):.2f}%", y=y, dx=label_offset or None, class_=f"name mid {kind_class(kind)}"
    )


PROXIMITY_HEADINGS = (
    "Axis", "Base", "trained, prompts", "rank correlation", "slope alone, points per SD",
    "slope beside the other axes", "VIF",
    "largest in",
)  # fmt: skip
JOINT_FIT_HEADINGS = PROXIMITY_HEADINGS[5:]


def build_proximity_table(results: Results) -> Table | None:
    """Build the table of JSR rise against proximity over selections; None if the results contain none."""
    rows = tuple(row for record in results.proximity_vs_jsr for row in _proximity_rows(record))
    title = f"Rise of the {rate_name(results)} against nearness of the training samples, over selections"
    # without a joint fit, its columns would have no number at all
    shown = [
        i
        for i, heading in enumerate(PROXIMITY_HEADINGS)
        if heading not in JOINT_FIT_HEADINGS or any(row[i] != formatting.MISSING for row in rows)
    ]
    headings, rows = tuple(PROXIMITY_HEADINGS[i] for i in shown), tuple(tuple(row[i] for i in shown) for row in rows)
    return Table(title, headings, rows, 3) if rows else None


def proximity_notes(results: Results) -> tuple[str, ...]:
    """Return the notes on regressions of JSR on proximity, without repetitions."""
    return tuple(dict.fromkeys(record.note for record in results.proximity_vs_jsr if record.note))


def _proximity_rows(record: ProximityVsJsrRecord) -> Iterator[tuple[str, ...]]:
    prompt_label = " · ".join(filter(None, (record.prompt_set, formatting.modality_label(record.modality))))
    condition = (
        f"{training_label(record.train_modality)} · {prompt_label} ({record.points} selections, "
        f"{record.replicates} runs)"
    )
    for predictor in record.predictors:
        joint = formatting.MISSING if predictor.joint_slope is None else _points_interval(predictor.joint_slope)
        largest = (
            formatting.MISSING if predictor.dominant_share is None else formatting.percent(predictor.dominant_share)
        )
        inflation = formatting.decimal(predictor.variance_inflation, 1)
        yield (
            predictor.name,
            record.model,
            condition,
            _decimal_interval(predictor.rank_correlation),
            _points_interval(predictor.slope),
            joint,
            inflation,
            largest,
        )


def _decimal_interval(value: ValueWithInterval) -> str:
    center, low, high = (formatting.decimal(number, 2) for number in (value.value, value.low, value.high))
    return center if value.low is None else f"{center} [{low},{formatting.NBSP}{high}]"


def _points_interval(value: ValueWithInterval) -> str:
    return " ".join(filter(None, (formatting.points(value.value), formatting.bracket(value.low, value.high))))
