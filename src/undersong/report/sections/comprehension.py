"""Table of comprehension: requests that an arm repeated, and replies on topic, beside its rate."""

from __future__ import annotations

from undersong.pages import formatting
from undersong.pages.tables import NumberCell, Table, percent_cell
from undersong.report.summary import RunRate, arm_summaries, default_verdict_filter, estimate_rate
from undersong.results.schema import PromptSetRate, Results, RunResult
from undersong.results.schema_outcomes import ComprehensionRate, ComprehensionRecord

MeasuredComprehension = list[tuple[RunResult, PromptSetRate, ComprehensionRecord]]


def build_comprehension_table(results: Results) -> Table | None:
    """Build the table of comprehension by arm, base and prompt set; None if the study did not check comprehension."""
    verdict_filter, short_labels = (
        default_verdict_filter(results),
        {arm.name: arm.short_label for arm in arm_summaries(results)},
    )
    groups: dict[tuple[str, ...], MeasuredComprehension] = {}
    for run in results.runs:
        for row in run.rates:
            if row.comprehension is not None:
                key = (
                    short_labels.get(run.arm, run.arm),
                    run.model,
                    row.prompt_set,
                    formatting.modality_label(row.modality),
                    row.system,
                )
                groups.setdefault(key, []).append((run, row, row.comprehension))
    if not groups or verdict_filter is None:
        return None
    names = ("Arm", "Base", "Set", "prompts", "system")
    rate = formatting.capitalize_first(verdict_filter.rate_label)
    head = (*names, rate, "repeated", "on topic (chance)", "comprehended", "of non-refusals")
    rows: list[tuple[str | NumberCell, ...]] = [
        (*key, *_comprehension_cells(measured)) for key, measured in groups.items()
    ]
    return Table(f"{rate} beside requests repeated and replies on topic, % [95 %]", head, tuple(rows), names=len(names))


def _comprehension_cells(measured: MeasuredComprehension) -> tuple[str | NumberCell, ...]:
    chances = [
        comprehension.on_topic.chance
        for _, _, comprehension in measured
        if comprehension.on_topic is not None and comprehension.on_topic.chance is not None
    ]
    chance_text = f"({formatting.percent_number(sum(chances) / len(chances))})" if chances else ""
    return (
        _rate_cell([(run, row, row) for run, row, _ in measured]),
        _rate_cell([(run, row, comprehension.repeated) for run, row, comprehension in measured]),
        _rate_cell([(run, row, comprehension.on_topic) for run, row, comprehension in measured], chance_text),
        _rate_cell([(run, row, comprehension.comprehended) for run, row, comprehension in measured]),
        _rate_cell([(run, row, comprehension.of_non_refusals) for run, row, comprehension in measured]),
    )


def _rate_cell(
    rates: list[tuple[RunResult, PromptSetRate, PromptSetRate | ComprehensionRate | None]], suffix: str = ""
) -> NumberCell:
    """The mean over the runs that have it."""
    run_rates = [
        RunRate(run, row.model_copy(update={"low": share.low, "high": share.high}), share.rate)
        for run, row, share in rates
        if share is not None
    ]
    pooled = estimate_rate(run_rates)
    return percent_cell(None) if pooled is None else percent_cell(pooled.mean, pooled.low, pooled.high, suffix)
