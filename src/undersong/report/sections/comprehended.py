"""Were the harmful requests heard, and are the replies to them?  A row an arm and a set, at the last step."""

from __future__ import annotations

from undersong.report import formatting
from undersong.report.judged import ComprehensionRate
from undersong.report.summary import RunRate, arm_summaries, default_verdict_filter, estimate_rate
from undersong.report.tables import NumberCell, Table, percent_cell
from undersong.results.schema import Results, RunResult, SetResult

RunSetResults = list[tuple[RunResult, SetResult]]


def build_comprehension_table(results: Results) -> Table | None:
    """None where the study did not ask."""
    verdict_filter, short_labels = (
        default_verdict_filter(results),
        {arm.name: arm.short_label for arm in arm_summaries(results)},
    )
    groups: dict[tuple[str, ...], RunSetResults] = {}
    for run in results.runs:
        for row in run.sets:
            if row.comprehension is not None:
                key = (
                    short_labels.get(run.arm, run.arm),
                    run.model or "",
                    row.set,
                    formatting.modality_label(row.modality),
                    row.system,
                )
                groups.setdefault(key, []).append((run, row))
    if not groups or verdict_filter is None:
        return None
    names = ("Arm", "Base", "Set", "asked", "system")
    rate = formatting.capitalize_first(verdict_filter.rate_label)
    head = (*names, rate, "heard", "about the request (chance)", "comprehended", "of non-refusals")
    rows: list[tuple[str | NumberCell, ...]] = [
        (*key, *_comprehension_cells(run_set_results)) for key, run_set_results in groups.items()
    ]
    return Table(
        f"{rate} beside what was heard and what replies are about, % [95 %]", head, tuple(rows), names=len(names)
    )


def _comprehension_cells(run_set_results: RunSetResults) -> tuple[str | NumberCell, ...]:
    comprehensions = [(run, row, row.comprehension) for run, row in run_set_results if row.comprehension is not None]
    on_topic = [(run, row, comprehension.about) for run, row, comprehension in comprehensions]
    return (
        _rate_cell(
            [(run, row, ComprehensionRate(rate=row.rate, low=row.low, high=row.high)) for run, row in run_set_results]
        ),
        _rate_cell([(run, row, comprehension.heard) for run, row, comprehension in comprehensions]),
        _rate_cell(on_topic, _chance_text([part for _, _, part in on_topic])),
        _rate_cell([(run, row, comprehension.comprehended) for run, row, comprehension in comprehensions]),
        _rate_cell([(run, row, comprehension.of_non_refusals) for run, row, comprehension in comprehensions]),
    )


def _rate_cell(rates: list[tuple[RunResult, SetResult, ComprehensionRate | None]], suffix: str = "") -> NumberCell:
    """The mean over the runs that have it."""
    run_rates = [
        RunRate(
            run,
            row.model_copy(update={"low": comprehension_rate.low, "high": comprehension_rate.high}),
            comprehension_rate.rate,
        )
        for run, row, comprehension_rate in rates
        if comprehension_rate is not None and comprehension_rate.rate is not None
    ]
    pooled = estimate_rate(run_rates)
    return percent_cell(None) if pooled is None else percent_cell(pooled.mean, pooled.low, pooled.high, suffix)


def _chance_text(rates: list[ComprehensionRate | None]) -> str:
    chances = [
        comprehension_rate.chance
        for comprehension_rate in rates
        if comprehension_rate is not None and comprehension_rate.chance is not None
    ]
    return f"({formatting.percent_number(sum(chances) / len(chances))})" if chances else ""
