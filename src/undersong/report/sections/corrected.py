"""Rates of runs corrected by labels that people gave: a table of the comparisons section."""

from __future__ import annotations

from collections.abc import Sequence

from undersong.evaluation.corrected_rates import CORRECTED_LABELS, CorrectedSetRate, Share
from undersong.pages.formatting import MISSING
from undersong.pages.tables import NumberCell, Table, percent_cell
from undersong.statistics.judge_correction import WIDTH_TARGET, CorrectedValue

HEAD = (
    *("Run", "Prompts", "Rate", "By the judge, %", "Corrected, %", "Labels"),
    *(f"Labels for ±{100 * WIDTH_TARGET:g} points", "Judge wrong, %", "Judge missed, %"),
)


def build_corrected_table(rates: Sequence[tuple[str, CorrectedSetRate]]) -> Table | None:
    """Build the table of corrected rates, from (run, its rate); None if there are none."""
    if not rates:
        return None
    rows: list[tuple[str | NumberCell, ...]] = []
    for run, rate in rates:
        value = rate.corrected
        prompts = ", ".join(filter(None, (rate.prompt_set, rate.modality, f"n = {rate.n}")))
        rows.append(
            (
                run,
                prompts,
                CORRECTED_LABELS[rate.harmful],
                percent_cell(rate.judge_rate),
                percent_cell(value.value, value.low, value.high),
                NumberCell(str(value.labeled), value.labeled),
                _needed_cell(value),
                _share_cell(rate.wrong),
                _share_cell(rate.missed),
            )
        )
    return Table("Rates corrected by labels, with 95 % intervals over prompts", HEAD, tuple(rows), names=3)


def _needed_cell(value: CorrectedValue) -> NumberCell:
    """How many labels in all would settle the rate; none would if the prompts themselves are too few."""
    if value.labels_needed is None:
        return NumberCell("more prompts", None)
    return NumberCell("enough" if value.is_settled else f"{value.labels_needed:,}", value.labels_needed)


def _share_cell(share: Share | None) -> NumberCell:
    return NumberCell(MISSING, None) if share is None else percent_cell(*share)
