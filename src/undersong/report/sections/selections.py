"""Every selection of training samples: hash, duplicates, overlap with other selections, and balance against the pool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from undersong.report import formatting
from undersong.report.tables import Table
from undersong.results.schema import Results
from undersong.results.schema_screening import SelectionRecord

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
    head = ("Selection", "of", "Value", "selection, %", "pool, %", "standardised difference")
    rows = tuple(
        (_selection_name(selection), " · ".join(path[:-1]), path[-1], *_balance_cells(values))
        for selection in results.selections
        for path, values in _balance_leaves(selection.balance)
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
    leaves = [
        (path, values) for path, values in _balance_leaves(selection.balance) if _number_at(values, 2) is not None
    ]
    largest_leaf = max(leaves, key=lambda leaf: abs(_number_at(leaf[1], 2) or 0.0), default=None)
    seconds = [formatting.decimal(selection.seconds.get(name), 2) for name in ("selection", "pool")]
    return SelectionRow(
        name=_selection_name(selection),
        notes=tuple(selection.notes),
        k=f"{selection.k:,}" if selection.k is not None else formatting.MISSING,
        draw=formatting.value_text(selection.draw),
        hash=selection.hash or "",
        same_as=tuple(selection.same_as) if selection.kind != "random" else (),  # drawn alike whatever the axis
        overlap=_largest_overlaps(selection.overlap),
        unbalanced=f"{' · '.join(largest_leaf[0])} {formatting.decimal(_number_at(largest_leaf[1], 2), 2)}"
        if largest_leaf
        else formatting.MISSING,
        seconds=" / ".join(seconds) if selection.seconds else formatting.MISSING,
    )


def _largest_overlaps(overlap: Mapping[str, float | None]) -> tuple[tuple[str, str], ...]:
    """The selections it shares most with, nearest first, each named without its draw; all are in the results."""
    nonzero = {name: value for name, value in overlap.items() if value}
    names = sorted(nonzero, key=lambda name: (-(nonzero[name] or 0.0), name))[:MAX_OVERLAPS]
    return tuple((name.removesuffix("/draw 0"), formatting.decimal(nonzero[name], 2)) for name in names)


def _balance_leaves(balance: Any, path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], list[Any]]]:
    """Every list in the nested balance, with the names that lead to it."""
    if isinstance(balance, list) and path:
        yield path, balance
    elif isinstance(balance, dict):
        for name, inner in balance.items():
            yield from _balance_leaves(inner, (*path, str(name)))


def _number_at(values: list[Any], i: int) -> float | None:
    value = values[i] if i < len(values) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _balance_cells(values: list[Any]) -> tuple[str, str, str]:
    return (
        formatting.percent_number(_number_at(values, 0)),
        formatting.percent_number(_number_at(values, 1)),
        formatting.decimal(_number_at(values, 2), 2),
    )
