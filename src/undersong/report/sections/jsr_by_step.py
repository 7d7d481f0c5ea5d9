"""JSR and refusal margin of every arm by training step, compared with the base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

from undersong.pages import formatting
from undersong.pages.svg import percent_axis, ticks
from undersong.pages.tables import NumberCell, PanelGroup, Table, number_cell, percent_cell
from undersong.report.arm_comparisons import HeadlineData, headline_data, headline_data_by_model
from undersong.report.sections.step_curves import StepMeasure, ValueAxis, step_curve_groups
from undersong.report.summary import (
    ArmSummary,
    Facet,
    RunRate,
    VerdictFilter,
    default_verdict_filter,
    estimate_margin,
    estimate_rate,
    facets,
)
from undersong.results.schema import Results, RunResult


@dataclass(frozen=True, slots=True)
class JsrByStep:
    """Curves by facet, training modality and prompt modality.

    `finding` says how many arms are above the base (may be empty); `numbers` is the table of the curves. `margins` are
    the curves of the refusal margin, empty if it was not measured.
    """

    rate: str
    top: str  # upper end of the y axis
    finding: str
    groups: tuple[PanelGroup, ...]
    margins: tuple[PanelGroup, ...]
    numbers: Table


def build_jsr_by_step(results: Results) -> JsrByStep | None:
    """Build the section of JSR by training step; None if no arm was tuned or none was given harmful prompts."""
    verdict_filter, facet_list = default_verdict_filter(results), facets(results)
    if verdict_filter is None or not facet_list:
        return None
    rates, margins = rate_measure(verdict_filter), margin_measure(verdict_filter)
    top, tick_marks = percent_axis(max(rates.drawn_values(facet_list), default=1.0))
    groups = step_curve_groups(facet_list, rates, ValueAxis(0.0, top, tick_marks))
    if not groups:
        return None
    has_margin = bool(margin_values := list(margins.drawn_values(facet_list)))
    rows = tuple(row for facet in facet_list for row in _table_rows(facet, verdict_filter, has_margin))
    head = (
        "Arm",
        "Base",
        "Prompts",
        "Step",
        "runs",
        "n, prompts a run",
        f"{verdict_filter.rate_label}, % [95 %]",
        "neither, %",
        *(("refusal margin, nats [95 %]",) if has_margin else ()),
    )
    return JsrByStep(
        rate=verdict_filter.rate_label,
        top=f"{100 * top:g}{formatting.THIN_SPACE}%",
        finding=_finding(results),
        groups=groups,
        margins=step_curve_groups(facet_list, margins, margin_axis(margin_values)) if has_margin else (),
        numbers=Table(f"{verdict_filter.rate_label} by arm and step", head, rows, names=3),
    )


def rate_measure(verdict_filter: VerdictFilter) -> StepMeasure:
    """Return the measure of curves of the JSR, or of the non-refusal rate."""
    return StepMeasure(
        label=verdict_filter.rate_label,
        run_rates=verdict_filter.run_rates,
        estimate=estimate_rate,
        number=formatting.percent_number,
        interval=formatting.bracket,
        unit=f"{formatting.THIN_SPACE}%",
    )


def margin_measure(verdict_filter: VerdictFilter) -> StepMeasure:
    """Return the measure of curves of the refusal margin."""
    return StepMeasure(
        label="refusal margin",
        run_rates=verdict_filter.run_margins,
        estimate=estimate_margin,
        number=formatting.nats_number,
        interval=formatting.nats_bracket,
        unit=" nats",
    )


def margin_axis(values: Sequence[float]) -> ValueAxis:
    """Return an axis of margins with round ends that all values and 0 fit on."""
    low, high = min(0.0, *values), max(0.0, *values)
    marks = ticks(low, high, 5)
    step = marks[1] - marks[0] if len(marks) > 1 else 1.0
    low, high = step * floor(low / step + 1e-9), step * ceil(high / step - 1e-9)
    decimals = formatting.decimals_needed(marks)
    return ValueAxis(low, high, [(value, formatting.decimal(value, decimals)) for value in ticks(low, high, 5)])


def _table_rows(
    facet: Facet, verdict_filter: VerdictFilter, has_margin: bool
) -> Iterable[tuple[str | NumberCell, ...]]:
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
                        *((_margin_cell(verdict_filter.run_margins(runs, modality)),) if has_margin else ()),
                    )


def _margin_cell(margins: Sequence[RunRate]) -> NumberCell:
    estimate = estimate_margin(margins)
    return number_cell(None) if estimate is None else number_cell(estimate.mean, estimate.low, estimate.high, 2)


def _runs_by_step(arm: ArmSummary) -> list[tuple[int, list[RunResult]]]:
    return [(step, arm.runs_at(step)) for step in sorted({run.step for run in arm.runs})]


def _neither_share(run_rates: Sequence[RunRate]) -> float | None:
    """The share of replies that are neither compliance nor refusal, or could not be judged."""
    reply_count = sum(cell.set_rate.n for cell in run_rates)
    neither_count = sum(cell.set_rate.other + cell.set_rate.lost for cell in run_rates)
    return neither_count / reply_count if reply_count else None


def _finding(results: Results) -> str:
    """Return how many arms are above the base by their intervals; of several models, for each by itself."""
    headline = headline_data(results)
    by_model = [] if headline is None else headline_data_by_model(results, headline.modality)
    if by_model:
        sentences = [(data.model, _count_sentence(data)) for data in by_model]
        return " ".join(f"{model}: {text[0].lower()}{text[1:]}" for model, text in sentences if text)
    return "" if headline is None else _count_sentence(headline)


def _count_sentence(headline: HeadlineData) -> str:
    if headline.base is None or not headline.measurements:
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
