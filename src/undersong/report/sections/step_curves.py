"""Curves over training steps: the mean and the runs of every arm, against the base."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.svg import PlotFrame, Tick, kind_class, tag, ticks
from undersong.pages.tables import Panel, PanelGroup, jitter_offsets, training_label
from undersong.report.summary import ArmSummary, Estimate, Facet, RunRate
from undersong.results.schema import RunResult

HEIGHT = 216


@dataclass(frozen=True, slots=True)
class StepMeasure:
    """Measure of a run at a step, such as its JSR, and how it is written."""

    label: str
    run_rates: Callable[[Iterable[RunResult], str], list[RunRate]]  # (runs, modality of the prompts)
    estimate: Callable[[Sequence[RunRate]], Estimate | None]
    number: Callable[[float | None], str]  # without a unit
    interval: Callable[[float | None, float | None], str]
    unit: str  # after a number, with the space before it

    def points(self, arm: ArmSummary, modality: str, base: Estimate | None) -> list[tuple[int, Estimate]]:
        """Return the arm's mean at each measured step; without a step 0 of its own, it starts at the base.

        Args:
            arm: The arm and its runs.
            modality: Modality of the prompts, `audio` or `text`.
            base: Estimate of the untuned model, used as step 0; None if it was not measured.
        """
        steps = sorted({run.step for run in arm.runs})
        points = [(step, self.estimate(self.run_rates(arm.runs_at(step), modality))) for step in steps]
        measured = [(step, point) for step, point in points if point is not None]
        if measured and base is not None and measured[0][0] > 0:
            return [(0, base), *measured]
        return measured

    def drawn_values(self, facet_list: Iterable[Facet]) -> Iterator[float]:
        """Yield every value that the curves of these facets show."""
        for facet in facet_list:
            for modality in ("audio", "text"):
                base = self.estimate(self.run_rates(facet.base_runs, modality))
                points = [point for arm in facet.arms for _, point in self.points(arm, modality, base)]
                yield from (cell.rate for arm in facet.arms for cell in self.run_rates(arm.runs, modality))
                for point in [*points, *([base] if base else [])]:
                    yield from (end for end in (point.low, point.mean, point.high) if end is not None)


@dataclass(frozen=True, slots=True)
class ValueAxis:
    """Axis of values: its ends and its ticks."""

    low: float
    high: float
    ticks: list[Tick]


def step_curve_groups(facet_list: Iterable[Facet], measure: StepMeasure, axis: ValueAxis) -> tuple[PanelGroup, ...]:
    """Return the curves by facet, training modality and prompt modality; facets without a curve are left out."""
    groups = [PanelGroup(facet.title, tuple(_facet_panels(facet, measure, axis))) for facet in facet_list]
    return tuple(group for group in groups if group.panels)


def _facet_panels(facet: Facet, measure: StepMeasure, axis: ValueAxis) -> Iterable[Panel]:
    for train_modality in facet.train_modalities:
        for modality in ("audio", "text"):
            arms = [arm for arm in facet.arms_trained_on(train_modality) if measure.run_rates(arm.runs, modality)]
            if arms:
                title = f"{training_label(train_modality)} · {formatting.modality_label(modality)} prompts"
                yield Panel(title, _step_plot(facet, arms, measure, modality, axis, title))


def _step_plot(
    facet: Facet, arms: Sequence[ArmSummary], measure: StepMeasure, modality: str, axis: ValueAxis, title: str
) -> Markup:
    steps = sorted({0, *(run.step for arm in facet.arms for run in arm.runs)})
    frame = PlotFrame.from_domains((steps[0], steps[-1]), (axis.low, axis.high), HEIGHT, inset=3)
    base = measure.estimate(measure.run_rates(facet.base_runs, modality))
    marks = [frame.grid(axis.ticks), frame.x_axis(_step_ticks(steps), "training steps")]
    labels = []
    if base is not None:
        marks.append(frame.reference_line(base.mean, "k-base", base.low, base.high))
        labels.append((base.mean, f"base {measure.number(base.mean)}", "k-base"))
    shifts = jitter_offsets([arm.name for arm in arms], 5.0)
    for arm in arms:
        points = measure.points(arm, modality, base)
        lines = _run_lines(frame, arm, measure, modality, base), _mean_line(frame, arm, measure, points, steps)
        marks.append(tag("g", *lines, transform=f"translate({shifts[arm.name]:g} 0)"))
        last = points[-1][1].mean
        labels.append((last, f"{arm.kind} {measure.number(last)}", kind_class(arm.kind)))
    description = f"{title}: {measure.label} over training steps. " + "; ".join(
        f"{text}{measure.unit}" for _, text, _ in labels
    )
    return frame.draw([*marks, frame.right_labels(labels)], description + " at the last step.")


def _step_ticks(steps: Sequence[int]) -> list[Tick]:
    chosen: Sequence[float] = steps if len(steps) <= 6 else ticks(steps[0], steps[-1], 5)
    return [(step, f"{step:g}") for step in chosen]


def _run_lines(frame: PlotFrame, arm: ArmSummary, measure: StepMeasure, modality: str, base: Estimate | None) -> Markup:
    """Every run as a thin line, where there is more than one."""
    by_run: dict[tuple[object, ...], list[RunResult]] = {}
    for run in sorted(arm.runs, key=lambda run: run.step):
        by_run.setdefault((run.base_seed, run.draw, run.seed), []).append(run)
    lines = []
    for runs in by_run.values():
        points = [(float(cell.run.step), cell.rate) for cell in measure.run_rates(runs, modality)]
        if points and base is not None and points[0][0] > 0:
            points.insert(0, (0.0, base.mean))
        if len(by_run) > 1 and len(points) > 1:
            lines.append(frame.polyline(points, f"run {kind_class(arm.kind)}"))
    return Markup("").join(lines)


def _mean_line(
    frame: PlotFrame,
    arm: ArmSummary,
    measure: StepMeasure,
    points: Sequence[tuple[int, Estimate]],
    steps: Sequence[int],
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
            f"{arm.label}, step {step}: {measure.number(point.mean)}{measure.unit} "
            f"{measure.interval(point.low, point.high)}"
        )
        marks.append(frame.dot(step, point.mean, arm.kind, f"{description}, {formatting.count(point.runs, 'run')}"))
    return Markup("").join(marks)
