"""Every selection: its hash, its twins, its overlap with others and its balance against the pool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from undersong.report import words
from undersong.report.beforehand import Selection
from undersong.report.panels import Table
from undersong.report.schema import Results

SHOWN = 4  # overlaps of a selection that are shown


@dataclass(frozen=True, slots=True)
class Line:
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
class Selected:
    """`twins`: how many selections are the same as another; `balance`: shares in the selection and in its pool."""

    lines: tuple[Line, ...]
    twins: int
    balance: Table


def build(results: Results) -> Selected | None:
    """None where the results hold no selection."""
    if not results.selections:
        return None
    lines = tuple(dict.fromkeys(_line(selection) for selection in results.selections))  # one a study, not one a model
    head = ("Selection", "of", "Value", "selection, %", "pool, %", "standardised difference")
    rows = tuple(
        (_name(selection), " · ".join(path[:-1]), path[-1], *_balance_cells(values))
        for selection in results.selections
        for path, values in _leaves(selection.balance)
    )
    twins = sum(1 for line in lines if line.same_as)
    return Selected(
        lines, twins, Table("Balance of every selection against its pool", head, tuple(dict.fromkeys(rows)), names=3)
    )


def _name(selection: Selection) -> str:
    if selection.rule:
        return f"{selection.axis} {selection.kind}: {selection.rule}"
    amount = f"{100 * selection.fraction:g}{words.THIN}%" if selection.fraction is not None else ""
    return " ".join(part for part in (selection.axis, selection.kind, amount) if part)


def _line(selection: Selection) -> Line:
    leaves = [(path, values) for path, values in _leaves(selection.balance) if _number(values, 2) is not None]
    most = max(leaves, key=lambda leaf: abs(_number(leaf[1], 2) or 0.0), default=None)
    seconds = [words.decimal(selection.seconds.get(name), 2) for name in ("selection", "pool")]
    return Line(
        name=_name(selection),
        notes=tuple(selection.notes),
        k=f"{selection.k:,}" if selection.k is not None else words.NONE,
        draw=words.plain(selection.draw),
        hash=selection.hash or "",
        same_as=tuple(selection.same_as) if selection.kind != "random" else (),  # drawn alike whatever the axis
        overlap=_most(selection.overlap),
        unbalanced=f"{' · '.join(most[0])} {words.decimal(_number(most[1], 2), 2)}" if most else words.NONE,
        seconds=" / ".join(seconds) if selection.seconds else words.NONE,
    )


def _most(overlap: Mapping[str, float | None]) -> tuple[tuple[str, str], ...]:
    """The selections it shares most with, nearest first, each named without its draw; all are in the results."""
    known = {name: value for name, value in overlap.items() if value}
    first = sorted(known, key=lambda name: (-(known[name] or 0.0), name))[:SHOWN]
    return tuple((name.removesuffix("/draw 0"), words.decimal(known[name], 2)) for name in first)


def _leaves(balance: Any, path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], list[Any]]]:
    """Every list in the nested balance, with the names that lead to it."""
    if isinstance(balance, list) and path:
        yield path, balance
    elif isinstance(balance, dict):
        for name, inner in balance.items():
            yield from _leaves(inner, (*path, str(name)))


def _number(values: list[Any], i: int) -> float | None:
    value = values[i] if i < len(values) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _balance_cells(values: list[Any]) -> tuple[str, str, str]:
    return words.bare(_number(values, 0)), words.bare(_number(values, 1)), words.decimal(_number(values, 2), 2)
