"""Descriptive statistics of selections for results.json: overlap, balance against the pool, score quantiles and
matching."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.proximity.rules import SelectionRule, parse_rule
from undersong.proximity.selection import Selection, select_by_rule, selection_order, selection_residual
from undersong.proximity.strata import NUMERIC_COLUMNS, align_column
from undersong.proximity.table import filter_harm_set, harm_set_names, ranking_scores
from undersong.statistics.balance import group_balance, imbalance, jaccard, standardized_difference
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_LISTED_VALUES = 24  # a column with more values is summarized only
NOT_LABELS = ("id", "text", *NUMERIC_COLUMNS)


def describe_selection(
    selections: Mapping[str, Selection], tables: Mapping[str, pa.Table], metadata: pa.Table
) -> dict[str, dict[str, Any]]:
    """Describe labelled selections, one entry each.

    An entry has these keys:

    - axis, harm_set, kind, rule, fraction, k, asked, seed, hash, notes;
    - `same_as`, `overlap`: equal selections, and the Jaccard overlap with the others;
    - `closest_on`: Jaccard overlap with equally many closest items of every axis;
    - `balance`: column -> value -> share in the selection, share in the pool, standardized difference;
    - `imbalance`: column -> values, largest, of, moved (also of columns with more than 24 values);
    - `numbers`: column -> means, standardized difference, number of known values;
    - `scores`: minimum, quartiles and maximum of the selection and of the pool;
    - `matching`: column -> imbalance without and with `matched`, both against the pool, even if the rule matches
      another selection;
    - `separation`: residual imbalance on the axis of `within`.

    Args:
        selections: Selection of each label.
        tables: Proximity table of each axis.
        metadata: Table of the pool's items (`sample_metadata_table`).

    Raises:
        UndersongError: An axis, a column or an item is missing.
    """
    overlap_by_label, equal_by_label = selection_overlaps(selections), equal_selections(selections)
    pools = {(selection.axis, selection.harm_set): _table(selection, tables) for selection in selections.values()}
    columns = {key: _columns(table, metadata) for key, table in pools.items()}
    return {
        label: {
            **_selection_fields(selection),
            "same_as": equal_by_label[label],
            "overlap": overlap_by_label[label],
            **_compare_with_pool(
                selection,
                tables,
                pools[selection.axis, selection.harm_set],
                *columns[selection.axis, selection.harm_set],
            ),
        }
        for label, selection in selections.items()
    }


def _selection_fields(selection: Selection) -> dict[str, Any]:
    fields = dataclasses.asdict(selection)
    fields["hash"] = fields.pop("ids_hash")
    fields["rule"] = str(_rule_of_selection(selection))
    fields["notes"] = list(fields["notes"])
    del fields["ids"]
    return fields


def _rule_of_selection(selection: Selection) -> SelectionRule:
    """Rule of a selection; a simple one is not stored, and its count gives the same ids as its share."""
    return parse_rule(selection.rule) if selection.rule else SelectionRule(selection.kind, selection.k)


def _compare_with_pool(
    selection: Selection,
    tables: Mapping[str, pa.Table],
    table: pa.Table,
    labels: Mapping[str, list[str]],
    numbers: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    ids = table.column("id").to_pylist()
    selected_ids = set(selection.ids)
    is_selected = np.array([id in selected_ids for id in ids])
    if int(is_selected.sum()) < selection.k:
        raise UndersongError(
            f"{selection.k - int(is_selected.sum())} selected items are not in the pool of {selection.axis}; "
            "give the table that the selection was made on."
        )
    rule = _rule_of_selection(selection)
    return {
        "closest_on": {axis: _overlap_with_closest(other, selection) for axis, other in tables.items()},
        "balance": {
            column: {
                value: list(row) for value, row in group_balance(_select_values(values, is_selected), values).items()
            }
            for column, values in labels.items()
            if len(set(values)) <= MAX_LISTED_VALUES
        },
        "imbalance": {
            column: imbalance(_select_values(values, is_selected), values)._asdict()
            for column, values in labels.items()
        },
        "numbers": {
            column: entry
            for column, column_values in numbers.items()
            if (entry := _compare_means(column_values, is_selected)) is not None
        },
        "scores": {
            "kept": _quantile_summary(ranking_scores(table)[is_selected]),
            "pool": _quantile_summary(ranking_scores(table)),
        },
        "matching": _matching_effect(rule, selection, table, labels, numbers, is_selected) if rule.matched else None,
        "separation": dataclasses.asdict(selection_residual(table, rule, selection, tables))
        if rule.within in tables
        else None,
    }


def _table(selection: Selection, tables: Mapping[str, pa.Table]) -> pa.Table:
    if selection.axis not in tables:
        raise UndersongError(f"There is no proximity table of axis {selection.axis!r}; give {', '.join(tables)}.")
    table = tables[selection.axis]
    return filter_harm_set(table, selection.harm_set) if len(harm_set_names(table)) > 1 else table


def _columns(table: pa.Table, metadata: pa.Table) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Labels with more than one value, and numbers (NaN if missing), in the order of the table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    labels, numbers = {}, {}
    for column in metadata.column_names:
        values = align_column(table.column("id"), metadata, column) if column != "id" else None
        if values is None or values.null_count == len(values):
            continue
        if column == "answer":
            values = pc.utf8_length(values)
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
            numbers[column] = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        elif column not in NOT_LABELS and len(values.unique()) > 1:
            labels[column] = [str(value) for value in values.to_pylist()]
    return labels, numbers


def _select_values(values: list[str], is_selected: np.ndarray) -> list[str]:
    return [value for value, selected in zip(values, is_selected) if selected]


def _compare_means(values: np.ndarray, is_selected: np.ndarray) -> dict[str, float | int] | None:
    is_finite = np.isfinite(values)
    if not (is_finite & is_selected).any():
        return None
    selected, pool = values[is_finite & is_selected], values[is_finite]
    difference = standardized_difference(selected, pool)
    return {
        "selection": float(selected.mean()),
        "pool": float(pool.mean()),
        "standardized_difference": difference,
        "known": int(is_finite.sum()),
    }


def _quantile_summary(values: np.ndarray) -> dict[str, float]:
    quartiles = np.quantile(values.astype(np.float64), [0, 0.25, 0.5, 0.75, 1]).tolist()
    return dict(zip(("min", "q25", "median", "q75", "max"), quartiles))


def _overlap_with_closest(table: pa.Table, selection: Selection) -> float | None:
    """Overlap with equally many closest items; None if the axis has several harm sets or too few items."""
    if len(harm_set_names(table)) > 1 or len(table) < selection.k:
        return None
    rows, k, _ = selection_order(table, SelectionRule("closest", selection.k))
    return jaccard(table.column("id").take(rows[:k]).to_pylist(), selection.ids)


def _matching_effect(
    rule: SelectionRule,
    selection: Selection,
    table: pa.Table,
    labels: Mapping[str, list[str]],
    numbers: Mapping[str, np.ndarray],
    is_selected: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Largest standardized difference of each matched column from the pool, without and with matching."""
    base_ids = set(select_by_rule(table, rule.base_rule, selection.seed or 0).ids)
    in_base_selection = np.array([id in base_ids for id in table.column("id").to_pylist()])

    def column_difference(column: str, rows: np.ndarray) -> float:
        if column in labels:
            return imbalance(_select_values(labels[column], rows), labels[column]).largest
        is_finite = np.isfinite(numbers[column])
        return standardized_difference(numbers[column][is_finite & rows], numbers[column][is_finite])

    measured_columns = [column for column in rule.matched if column in labels or column in numbers]
    return {
        column: {
            "before": column_difference(column, in_base_selection),
            "after": column_difference(column, is_selected),
        }
        for column in measured_columns
    }


@dataclasses.dataclass(frozen=True, slots=True)
class CutTie:
    """Items that share the score at the cut of a selection, of which it took only a part."""

    score: float
    tied: int
    selected: int

    @property
    def sentence(self) -> str:
        """How many there are, and how many were taken."""
        shared = f"{self.tied} items share the score at the cut ({self.score:.6g})"
        return f"{shared}; {self.selected} of them were taken, by id."


def cut_tie(selection: Selection, table: pa.Table) -> CutTie | None:
    """Tie at the cut of a selection, which only ids (and caps) decided; None if there is none.

    Args:
        selection: The selection.
        table: The proximity table it was made on.
    """
    if selection.kind not in ("closest", "distant"):
        return None
    values = dict(zip(table.column("id").to_pylist(), ranking_scores(table).tolist()))
    find_cut = max if selection.kind == "closest" else min
    cut = find_cut(values[i] for i in selection.ids)
    tied, selected = (sum(values[i] == cut for i in ids) for ids in (values, selection.ids))
    return None if selected == tied else CutTie(cut, tied, selected)


def selection_overlaps(selections: Mapping[str, Selection]) -> dict[str, dict[str, float]]:
    """Jaccard overlap of each labelled selection with every other."""
    return {
        label: {
            other: jaccard(selection.ids, other_selection.ids)
            for other, other_selection in selections.items()
            if other != label
        }
        for label, selection in selections.items()
    }


def equal_selections(selections: Mapping[str, Selection]) -> dict[str, list[str]]:
    """Labels of the other selections with the same ids, for each labelled selection: arms on them are one arm."""
    return {
        label: [
            other
            for other, other_selection in selections.items()
            if other != label and other_selection.ids_hash == selection.ids_hash
        ]
        for label, selection in selections.items()
    }
