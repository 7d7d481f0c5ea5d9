"""JSR of every arm by training step, compared with the base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from undersong.report import formatting
from undersong.report.arm_comparisons import headline_data
from undersong.report.summary import (
    ArmSummary,
    Estimate,
    Facet,
    RunRate,
    VerdictFilter,
    default_verdict_filter,
    estimate_rate,
    facets,
)
from undersong.report.svg import PlotFrame, kind_class, percent_axis, tag, ticks
from undersong.report.tables import NumberCell, Panel, PanelGroup, Table, jitter_offsets, percent_cell, training_label
from undersong.results.schema import Results, RunResult

HEIGHT = 216


@dataclass(frozen=True, slots=True)
class JsrByStep:
    """Curves by facet, training modality and prompt modality.

    `finding` says how many arms are above the base (may be empty); `numbers` is the table of the curves.
    """

    rate: str
    top: str  # upper end of the y axis
    finding: str
    groups: tuple[PanelGroup, ...]
    numbers: Table


def build_jsr_by_step(results: Results) -> JsrByStep | None:
    """Build the section of JSR by training step; None if no arm was tuned or none was given harmful prompts."""
    verdict_filter, facet_list = default_verdict_filter(results), facets(results)
    if verdict_filter is None or not facet_list:
        return None
    top = percent_axis(max(_highest_rates(facet_list, verdict_filter), default=1.0))[0]
    groups = [PanelGroup(facet.title, tuple(_facet_panels(facet, verdict_filter, top))) for facet in facet_list]
    groups = [group for group in groups if group.panels]
    if not groups:
        return None
    rows = tuple(row for facet in facet_list for row in _table_rows(facet, verdict_filter))
    head = (
        "Arm",
        "Base",
        "Prompts",
        "Step",
        "runs",
        "n, prompts a run",
        f"{verdict_filter.rate_label}, % [95 %]",
        "neither, %",
    )
    return JsrByStep(
        rate=verdict_filter.rate_label,
        top=f"{100 * top:g}{formatting.THIN_SPACE}%",
        finding=_finding(results),
        groups=tuple(groups),
        numbers=Table(f"{verdict_filter.rate_label} by arm and step", head, rows, names=3),
    )


def _highest_rates(facet_list: Iterable[Facet], verdict_filter: VerdictFilter) -> Iterable[float]:
    for facet in facet_list:
        for modality in ("audio", "text"):
            base = estimate_rate(verdict_filter.run_rates(facet.base_runs, modality))
            points = [point for arm in facet.arms for _, point in rate_by_step(arm, verdict_filter, modality, base)]
            yield from (cell.rate for arm in facet.arms for cell in verdict_filter.run_rates(arm.runs, modality))
            yield from (max(point.mean, point.high or 0.0) for point in [*points, *([base] if base else [])])


def rate_by_step(
    arm: ArmSummary, verdict_filter: VerdictFilter, modality: str, base: Estimate | None
) -> list[tuple[int, Estimate]]:
    """Return the arm's mean rate at each measured step; without a step 0 of its own, it starts at the base.

    Args:
        arm: The arm and its runs.
        verdict_filter: Prompt set, system prompt and judge of the rate.
        modality: Modality of the prompts, `audio` or `text`.
        base: Rate of the untuned model, used as step 0; None if it was not measured.
    """
    steps = sorted({run.step for run in arm.runs})
    points = [(step, estimate_rate(verdict_filter.run_rates(arm.runs_at(step), modality))) for step in steps]
    measured = [(step, point) for step, point in points if point is not None]
    if measured and base is not None and measured[0][0] > 0:
        return [(0, base), *measured]
    return measured


def _facet_panels(facet: Facet, verdict_filter: VerdictFilter, top: float) -> Iterable[Panel]:
    for train_modality in facet.train_modalities:
        for modality in ("audio", "text"):
            arms = [
                arm for arm in facet.arms_trained_on(train_modality) if verdict_filter.run_rates(arm.runs, modality)
            ]
            if arms:
                title = f"{training_label(train_modality)} · {formatting.modality_label(modality)} prompts"
                yield Panel(title, _step_plot(facet, arms, verdict_filter, modality, top, title))


def _step_plot(
    facet: Facet, arms: Sequence[ArmSummary], verdict_filter: VerdictFilter, modality: str, top: float, title: str
) -> Markup:
    steps = sorted({0, *(run.step for arm in facet.arms for run in arm.runs)})
    frame = PlotFrame.from_domains((steps[0], steps[-1]), (0.0, top), HEIGHT, inset=3)
    base = estimate_rate(verdict_filter.run_rates(facet.base_runs, modality))
    marks = [frame.grid(percent_axis(top)[1]), frame.x_axis(_step_ticks(steps), "training steps")]
    labels = []
    if base is not None:
        marks.append(frame.reference_line(base.mean, "k-base", base.low, base.high))
        labels.append((base.mean, f"base {formatting.percent_number(base.mean)}", "k-base"))
    shifts = jitter_offsets([arm.name for arm in arms], 5.0)
    for arm in arms:
        points = rate_by_step(arm, verdict_filter, modality, base)
        lines = _run_lines(frame, arm, verdict_filter, modality, base), _mean_line(frame, arm, points, steps)
        marks.append(tag("g", *lines, transform=f"translate({shifts[arm.name]:g} 0)"))
        labels.append(
            (points[-1][1].mean, f"{arm.kind} {formatting.percent_number(points[-1][1].mean)}", kind_class(arm.kind))
        )
    description = f"{title}: {verdict_filter.rate_label} over training steps. " + "; ".join(
        f"{text}{formatting.THIN_SPACE}%" for _, text, _ in labels
    )
    return frame.draw([*marks, frame.right_labels(labels)], description + " at the last step.")


def _step_ticks(steps: Sequence[int]) -> list[tuple[float, str]]:
    chosen: Sequence[float] = steps if len(steps) <= 6 else ticks(steps[0], steps[-1], 5)
    return [(step, f"{step:g}") for step in chosen]


def _run_lines(
    frame: PlotFrame, arm: ArmSummary, verdict_filter: VerdictFilter, modality: str, base: Estimate | None
) -> Markup:
    """Every run as a thin line, where there is more than one."""
    by_run: dict[tuple[object, ...], list[RunResult]] = {}
    for run in sorted(arm.runs, key=lambda run: run.step):
        by_run.setdefault((run.base_seed, run.draw, run.seed), []).append(run)
    lines = []
    for runs in by_run.values():
        points = [(float(cell.run.step), cell.rate) for cell in verdict_filter.run_rates(runs, modality)]
        if points and base is not None and points[0][0] > 0:
            points.insert(0, (0.0, base.mean))
        if len(by_run) > 1 and len(points) > 1:
            lines.append(frame.polyline(points, f"run {kind_class(arm.kind)}"))
    return Markup("").join(lines)


def _mean_line(
    frame: PlotFrame, arm: ArmSummary, points: Sequence[tuple[int, Estimate]], steps: Sequence[int]
) -> Markup:
    """Draw the mean as a thick line with a dot and interval at each measured step, dotted across other steps."""
    marks = []
    for (start, a), (end, b) in pairwise(points):
        skipped = any(start < step < end for step in steps)
        style = f"mean {kind_class(arm.kind)}{' gap' if skipped else ''}"
        marks.append(frame.polyline([(start, a.mean), (end, b.mean)], style))
    for step, point in points:
        if step == 0 and len(points) > 1:
            continue  # the base is drawn already
        if point.low is not None and point.high is not None:
            marks.append(frame.interval_line(step, point.low, point.high, kind_class(arm.kind)))
        description = (
            f"{arm.label}, step {step}: {formatting.percent(point.mean)} {formatting.bracket(point.low, point.high)}"
        )
        marks.append(frame.dot(step, point.mean, arm.kind, f"{description}, {formatting.count(point.runs, 'run')}"))
    return Markup("").join(marks)


def _table_rows(facet: Facet, verdict_filter: VerdictFilter) -> Iterable[tuple[str | NumberCell, ...]]:
    base = ", ".join(dict.fromkeys(str(run.base_seed) for run in facet.base_runs if run.base_seed is not None))
    for name, runs_by_step in [
        ("base", [(0, list(facet.base_runs))]),
        *((arm.short_label, _runs_by_step(arm)) for arm in facet.arms),
    ]:
        for modality in ("audio", "text"):
            for step, runs in runs_by_step:
                cells = verdict_filter.run_rates(runs, modality)
                estimate = estimate_rate(cells)
                if estimate is not None:
                    yield (
                        name,
                        base or formatting.MISSING,
                        formatting.modality_label(modality),
                        str(step),
                        str(estimate.runs),
                        f"{estimate.n:,}",
                        percent_cell(estimate.mean, estimate.low, estimate.high),
                        percent_cell(_neither_share(cells)),
                    )


def _runs_by_step(arm: ArmSummary) -> list[tuple[int, list[RunResult]]]:
    return [(step, arm.runs_at(step)) for step in sorted({run.step for run in arm.runs})]


def _neither_share(run_rates: Sequence[RunRate]) -> float | None:
    """The share of replies that are neither compliance nor refusal, or could not be judged."""
    reply_count = sum(cell.set_rate.n for cell in run_rates)
    neither_count = sum(cell.set_rate.other + cell.set_rate.lost for cell in run_rates)
    return neither_count / reply_count if reply_count else None


def _finding(results: Results) -> str:
    """Return how many arms are above the base by their intervals."""
    headline = headline_data(results)
    if headline is None or headline.base is None or not headline.measurements:
        return ""
    states = [headline.relation_to_base(item) for item in headline.measurements]
    state_counts = [
        (states.count("higher"), "above the base"),
        (states.count("same"), "not shown to differ from the base"),
        (states.count("lower"), "below the base"),
        (states.count("unknown"), "without an interval to judge by"),
    ]
    parts = [f"{n} {'is' if n == 1 else 'are'} {phrase}" for n, phrase in state_counts if n]
    arms = formatting.count(len(states), "arm")
    return (
        f"Of {arms}, evaluated on {formatting.modality_label(headline.modality)} prompts at the last step, "
        f"{formatting.join_items(parts)}."
    )
