"""What every selection is beside the others and beside its pool: plain numbers for results.json.  Keeps nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.proximity.agreeing.agreement import overlaps, same_as
from undersong.proximity.choosing.keep import Keep, read_keep
from undersong.proximity.choosing.ranking import harm_sets, priority
from undersong.proximity.choosing.selection import Selection, choose, left_over
from undersong.proximity.choosing.strata import NUMBERS, aligned
from undersong.proximity.sets import to_harm_set
from undersong.proximity.table import scores
from undersong.statistics import balance, imbalance, jaccard, standardised
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 24  # values of a column that are listed one by one; above, they are summed up
NOT_LABELS = ("id", "text", *NUMBERS)


def selection_report(
    selections: Mapping[str, Selection], tables: Mapping[str, pa.Table], facts: pa.Table
) -> dict[str, dict[str, Any]]:
    """One entry a labelled selection, from the proximity tables by axis and the pool's facts (`facts_of`).

    Keys: axis, harm_set, kind, rule, fraction, k, asked, seed, hash, notes; `same_as` and `overlap` (Jaccard) with the
    other selections; `closest_on`: Jaccard with the as many closest of every axis; `balance`: column -> value -> share
    in the selection, in the pool, standardised difference; `imbalance`: column -> values, largest, of, moved (also of
    columns with more than 24 values); `numbers`: column -> means, standardised difference, how many are known;
    `scores`: minimum, quartiles and maximum of what is kept and of the pool; `matching`: column -> imbalance without
    and with `matched`, both beside the pool, whose shares a rule that is like another selection does not take;
    `separation`: what `within` an axis left over.
    Raises UndersongError where an axis, a column or an item is not there.
    """
    overlap, same = overlaps(selections), same_as(selections)
    pools = {(one.axis, one.harm_set): _table(one, tables) for one in selections.values()}
    columns = {place: _columns(table, facts) for place, table in pools.items()}
    return {
        label: {
            **_itself(selection),
            "same_as": same[label],
            "overlap": overlap[label],
            **_beside_pool(
                selection,
                tables,
                pools[selection.axis, selection.harm_set],
                *columns[selection.axis, selection.harm_set],
            ),
        }
        for label, selection in selections.items()
    }


def _itself(selection: Selection) -> dict[str, Any]:
    says = dataclasses.asdict(selection)
    says["hash"] = says.pop("ids_hash")
    says["rule"] = str(_rule(selection))
    says["notes"] = list(says["notes"])
    del says["ids"]
    return says


def _rule(selection: Selection) -> Keep:
    """The rule a selection was kept by; a plain one does not say it, and its count gives the same ids as its share."""
    return read_keep(selection.rule) if selection.rule else Keep(selection.kind, selection.k)


def _beside_pool(
    selection: Selection,
    tables: Mapping[str, pa.Table],
    table: pa.Table,
    labels: Mapping[str, list[str]],
    numbers: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    ids = table.column("id").to_pylist()
    inside = set(selection.ids)
    kept = np.array([id in inside for id in ids])
    if int(kept.sum()) < selection.k:
        raise UndersongError(f"{selection.k - int(kept.sum())} selected items are not in the pool of {selection.axis}.")
    keep = _rule(selection)
    return {
        "closest_on": {axis: _shared_with_closest(other, selection) for axis, other in tables.items()},
        "balance": {
            column: {value: list(row) for value, row in balance(_of(values, kept), values).items()}
            for column, values in labels.items()
            if len(set(values)) <= MOST
        },
        "imbalance": {column: imbalance(_of(values, kept), values)._asdict() for column, values in labels.items()},
        "numbers": {column: entry for column, v in numbers.items() if (entry := _number(v, kept)) is not None},
        "scores": {"kept": _spread(scores(table)[kept]), "pool": _spread(scores(table))},
        "matching": _matching(keep, selection, table, labels, numbers, kept) if keep.matched else None,
        "separation": dataclasses.asdict(left_over(table, keep, selection, tables)) if keep.within in tables else None,
    }


def _table(selection: Selection, tables: Mapping[str, pa.Table]) -> pa.Table:
    if selection.axis not in tables:
        raise UndersongError(f"There is no proximity table of axis {selection.axis!r}; give {', '.join(tables)}.")
    table = tables[selection.axis]
    return to_harm_set(table, selection.harm_set) if len(harm_sets(table)) > 1 else table


def _columns(table: pa.Table, facts: pa.Table) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Labels with more than one value, and numbers (NaN: missing), in the table's order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    labels, numbers = {}, {}
    for column in facts.column_names:
        values = aligned(table.column("id"), facts, column) if column != "id" else None
        if values is None or values.null_count == len(values):
            continue
        if column == "answer":
            values = pc.utf8_length(values)
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
            numbers[column] = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        elif column not in NOT_LABELS and len(values.unique()) > 1:
            labels[column] = [str(value) for value in values.to_pylist()]
    return labels, numbers


def _of(values: list[str], kept: np.ndarray) -> list[str]:
    return [value for value, inside in zip(values, kept) if inside]


def _number(values: np.ndarray, kept: np.ndarray) -> dict[str, float | int] | None:
    known = np.isfinite(values)
    if not (known & kept).any():
        return None
    selected, pool = values[known & kept], values[known]
    difference = standardised(selected, pool)
    return {
        "selection": float(selected.mean()),
        "pool": float(pool.mean()),
        "standardised_difference": difference,
        "known": int(known.sum()),
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    quartiles = np.quantile(values.astype(np.float64), [0, 0.25, 0.5, 0.75, 1]).tolist()
    return dict(zip(("min", "q25", "median", "q75", "max"), quartiles))


def _shared_with_closest(table: pa.Table, selection: Selection) -> float | None:
    """None where the axis is to several harm sets, or has fewer items than are kept."""
    if len(harm_sets(table)) > 1 or len(table) < selection.k:
        return None
    rows, k, _ = priority(table, Keep("closest", selection.k))
    return jaccard(table.column("id").take(rows[:k]).to_pylist(), selection.ids)


def _matching(
    keep: Keep,
    selection: Selection,
    table: pa.Table,
    labels: Mapping[str, list[str]],
    numbers: Mapping[str, np.ndarray],
    kept: np.ndarray,
) -> dict[str, dict[str, float]]:
    """What matching mended: the farthest standardised difference of each matched column, before and after."""
    inside = set(choose(table, keep.bare, selection.seed or 0).ids)
    plain = np.array([id in inside for id in table.column("id").to_pylist()])

    def off(column: str, rows: np.ndarray) -> float:
        if column in labels:
            return imbalance(_of(labels[column], rows), labels[column]).largest
        known = np.isfinite(numbers[column])
        return standardised(numbers[column][known & rows], numbers[column][known])

    measured = [column for column in keep.matched if column in labels or column in numbers]
    return {column: {"before": off(column, plain), "after": off(column, kept)} for column in measured}
