"""Every selection of training samples: hash, duplicates, overlap with others, and balance against the pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from undersong.pages import formatting
from undersong.pages.tables import Table
from undersong.results.schema import Results
from undersong.results.schema_screening import LabelBalance, SelectionRecord

MAX_OVERLAPS = 4  # overlaps of a selection that are shown


@dataclass(frozen=True, slots=True)
class SelectionRow:
    """Row of one selection.

    `diversity` counts distinct texts, groups and voices, such as "54 of 216". `overlap` names other selections with
    their Jaccard index. `seconds` is the mean clip length in selection and pool. `same_as` names selections of the same
    ids; it is empty for random ones, which are equal on every axis.
    """

    name: str
    notes: tuple[str, ...]  # what the pool could not provide
    k: str
    diversity: tuple[str, str, str]  # texts, groups, voices
    draw: str
    hash: str
    same_as: tuple[str, ...]
    overlap: tuple[tuple[str, str], ...]
    unbalanced: str  # largest difference from its pool
    seconds: str


@dataclass(frozen=True, slots=True)
class SelectionsSection:
    """All selections, the number that equal another one, and their balance against the pool."""

    lines: tuple[SelectionRow, ...]
    twins: int
    balance: Table


def build_selections(results: Results) -> SelectionsSection | None:
    """Build the section of selections; None if the results contain none."""
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
        notes=(*selection.notes, *_tie_notes(selection)),
        diversity=_diversity_cells(selection),
        k=f"{selection.k:,}",
        draw=formatting.value_text(selection.draw),
        hash=selection.selection_hash,
        same_as=tuple(selection.same_as) if selection.kind != "random" else (),  # equal on every axis
        overlap=_largest_overlaps(selection.jaccard),
        unbalanced=f"{name} {formatting.decimal(difference, 2)}" if balances else formatting.MISSING,
        seconds=f"{formatting.decimal(seconds.selection, 2)} / {formatting.decimal(seconds.pool, 2)}",
    )


def _tie_notes(selection: SelectionRecord) -> tuple[str, ...]:
    """Sentence on a tie at the cut, if there was one."""
    tie = selection.cut_tie
    return () if tie is None else (f"{tie.selected:,} of {tie.tied:,} samples with the score at the cut, taken by id.",)


def _diversity_cells(selection: SelectionRecord) -> tuple[str, str, str]:
    diversity = selection.diversity
    if diversity is None:
        return (formatting.MISSING,) * 3

    def cell(selected: int | None, pool: int | None) -> str:
        return formatting.MISSING if pool is None else f"{selected or 0:,} of {pool:,}"

    selected, pool = diversity.selection, diversity.pool
    return (
        cell(selected.texts, pool.texts),
        cell(selected.groups, pool.groups),
        cell(selected.voices, pool.voices),
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
