"""Every selection of training samples: hash, duplicates, overlap with others, and balance against the pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from undersong.report import formatting
from undersong.report.tables import Table
from undersong.results.schema import Results
from undersong.results.schema_screening import LabelBalance, SelectionRecord

MAX_OVERLAPS = 4  # overlaps of a selection that are shown


@dataclass(frozen=True, slots=True)
class SelectionRow:
    """One selection.  `overlap`: (another, Jaccard index) of the largest; `seconds`: mean length, selection / pool.

    `same_as`: selections of the same ids; none of random ones, which are drawn alike whatever the axis.
    """

    name: str
    notes: tuple[str, ...]  # what could not be had
    k: str
    draw: str
    hash: str
    same_as: tuple[str, ...]
    overlap: tuple[tuple[str, str], ...]
    unbalanced: str  # where it differs most from its pool
    seconds: str


@dataclass(frozen=True, slots=True)
class SelectionsSection:
    """`twins`: how many selections are the same as another; `balance`: shares in the selection and in its pool."""

    lines: tuple[SelectionRow, ...]
    twins: int
    balance: Table


def build_selections(results: Results) -> SelectionsSection | None:
    """None where the results hold no selection."""
    if not results.selections:
        return None
    selection_rows = tuple(
        dict.fromkeys(_selection_row(selection) for selection in results.selections)
    )  # one a study, not one a model
    head = ("Selection", "of", "Value", "selection, %", "pool, %", "standardized difference")
    rows = tuple(
        (_selection_name(selection), column, value, *_balance_cells(balance))
        for selection in results.selections
        for column, balances in selection.balance.items()
        for value, balance in balances.items()
    )
    duplicates = sum(1 for line in selection_rows if line.same_as)
    return SelectionsSection(
        selection_rows,
        duplicates,
        Table("Balance of every selection against its pool", head, tuple(dict.fromkeys(rows)), names=3),
    )


def _selection_name(selection: SelectionRecord) -> str:
    if selection.rule:
        return f"{selection.axis} {selection.kind}: {selection.rule}"
    amount = f"{100 * selection.fraction:g}{formatting.THIN_SPACE}%" if selection.fraction is not None else ""
    return " ".join(part for part in (selection.axis, selection.kind, amount) if part)


def _selection_row(selection: SelectionRecord) -> SelectionRow:
    balances = [
        (f"{column} · {value}", balance.standardized_difference)
        for column, by_value in selection.balance.items()
        for value, balance in by_value.items()
    ]
    name, difference = max(balances, key=lambda pair: abs(pair[1]), default=("", 0.0))
    seconds = selection.mean_seconds
    return SelectionRow(
        name=_selection_name(selection),
        notes=tuple(selection.notes),
        k=f"{selection.k:,}",
        draw=formatting.value_text(selection.draw),
        hash=selection.selection_hash,
        same_as=tuple(selection.same_as) if selection.kind != "random" else (),  # drawn alike whatever the axis
        overlap=_largest_overlaps(selection.jaccard),
        unbalanced=f"{name} {formatting.decimal(difference, 2)}" if balances else formatting.MISSING,
        seconds=f"{formatting.decimal(seconds.selection, 2)} / {formatting.decimal(seconds.pool, 2)}",
    )


def _largest_overlaps(overlap: Mapping[str, float]) -> tuple[tuple[str, str], ...]:
    """The selections it shares most with, nearest first, each named without its draw; all are in the results."""
    nonzero = {name: value for name, value in overlap.items() if value}
    names = sorted(nonzero, key=lambda name: (-nonzero[name], name))[:MAX_OVERLAPS]
    return tuple((name.removesuffix("/draw 0"), formatting.decimal(nonzero[name], 2)) for name in names)


def _balance_cells(balance: LabelBalance) -> tuple[str, str, str]:
    return (
        formatting.percent_number(balance.share_selected),
        formatting.percent_number(balance.share_pool),
        formatting.decimal(balance.standardized_difference, 2),
    )
