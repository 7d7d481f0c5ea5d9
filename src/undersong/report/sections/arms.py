"""Every arm at its last step beside the base, asked by voice and in writing: the numbers that a headline is made of."""

from __future__ import annotations

from collections.abc import Iterator

from undersong.report import formatting
from undersong.report.arm_comparisons import HeadlineData, headline_data_by_modality
from undersong.report.summary import Estimate, relation
from undersong.report.tables import NumberCell, Table
from undersong.results.schema import Results

RELATION_TO_BASE = {"higher": ", above the base", "lower": ", below the base", "same": "", "unknown": ""}


def build_arm_table(results: Results) -> Table | None:
    """A row an arm, a column a modality of the prompts; None where no harmful prompt was asked."""
    headlines = sorted(headline_data_by_modality(results), key=lambda headline: headline.modality)
    estimates_by_arm: dict[
        str, dict[str, tuple[Estimate, str]]
    ] = {}  # arm -> modality -> the rate there, how it is to the base
    for headline in headlines:
        for name, estimate, relation_text in _arm_estimates(headline):
            estimates_by_arm.setdefault(name, {})[headline.modality] = estimate, relation_text
    if not estimates_by_arm:
        return None
    modalities, rate = (
        [headline.modality for headline in headlines],
        formatting.capitalize_first(headlines[0].verdict_filter.rate_label),
    )
    rows: list[tuple[str | NumberCell, ...]] = []
    for name, by_modality in estimates_by_arm.items():
        cells = [
            _estimate_cell(*by_modality[modality]) if modality in by_modality else NumberCell(formatting.MISSING, None)
            for modality in modalities
        ]
        runs, sizes = (
            dict.fromkeys(format_cell(estimate) for estimate, _ in by_modality.values())
            for format_cell in (_run_count, _prompt_count)
        )
        rows.append((name, *cells, ", ".join(runs), ", ".join(sizes)))
    head = (
        "Arm",
        *(f"{rate}, {formatting.modality_label(modality)}" for modality in modalities),
        "runs",
        "n, prompts a run",
    )
    caption = f"{rate} of every arm at its last step, with 95 % intervals; one that can be told from the base says so"
    return Table(caption, head, tuple(rows))


def _arm_estimates(headline: HeadlineData) -> Iterator[tuple[str, Estimate, str]]:
    if headline.base is not None:
        yield "base", headline.base, ""
    for item in headline.measurements:
        state = (
            relation(item.estimate, headline.base, headline.comparison_to_base(item))
            if headline.base is not None
            else "unknown"
        )
        yield item.arm.label, item.estimate, RELATION_TO_BASE[state]


def _estimate_cell(estimate: Estimate, relation_text: str) -> NumberCell:
    interval = formatting.bracket(estimate.low, estimate.high) or "no interval"
    failure_text = f" (failures counted: {formatting.percent(estimate.most)})" if estimate.lost else ""
    ends = (None if end is None else 100 * end for end in (estimate.low, estimate.high))
    return NumberCell(
        f"{formatting.percent(estimate.mean)} {interval}{failure_text}{relation_text}", 100 * estimate.mean, *ends
    )


def _run_count(estimate: Estimate) -> str:
    return str(estimate.runs)


def _prompt_count(estimate: Estimate) -> str:
    return (
        f"{estimate.n:,} in {formatting.count(estimate.clusters, 'cluster')}"
        if estimate.clusters
        else f"{estimate.n:,}"
    )
