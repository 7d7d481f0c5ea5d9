"""Selects pool items by a rule, with caps, matching and strata, and reads and writes the resulting `Selection` as
JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.rules import SelectionRule, selection_order
from undersong.proximity.strata import (
    ResidualImbalance,
    cluster_labels,
    column_strata,
    combine_strata,
    quantile_bins,
    residual_imbalance,
    scores_on_axis,
    sorted_label_codes,
    stratum_quotas,
    take_within_limits,
)
from undersong.proximity.table import ranking_metadata, ranking_scores, single_axis
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

ProximityTables = Mapping[str, "pa.Table"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The ids kept, and all that is needed to keep them again.  Two selections with one `ids_hash` are one."""

    axis: str
    score: str  # nearest | knn:K | centroid, with " centred" where the pool's mean was subtracted
    kind: str  # closest | distant | random | band | below | above
    fraction: float  # asked for; k / n where a count or a threshold was
    k: int
    seed: int | None  # of the random draw; None for kinds that draw nothing
    ids: tuple[str, ...]  # sorted
    ids_hash: str  # SHA-256 of the sorted ids joined by "\n"
    # What follows is in the file only where it says something: plain selections are written as they always were.
    harm_set: str = ""  # where the table was to several
    rule: str = ""  # the whole rule, where it is more than kind and amount
    asked: int | None = None  # how many, where fewer could be kept
    notes: tuple[str, ...] = ()  # what could not be had, or not be separated


def select_by_kind(proximity: pa.Table, kind: str, amount: float | int, seed: int = 0) -> Selection:
    """Keep `amount` of one axis's proximity table: a float is a share in (0, 1], of which floor(share x n) items and at
    least 1 are kept; an int is a count.  `choose` with the rule KIND:AMOUNT.

    `closest` are the first ranks, `distant` the last, so that no tie puts an id into both.  `random` is the head of a
    permutation of the sorted ids by `numpy.random.default_rng(seed)`: a smaller share is part of a larger one.
    Raises UndersongError for an empty pool, an amount out of range, or a table of several axes.
    """
    return select_by_rule(proximity, SelectionRule(kind, amount), seed)


def select_by_rule(
    proximity: pa.Table,
    rule: SelectionRule,
    seed: int = 0,
    *,
    metadata: pa.Table | None = None,
    other_tables: ProximityTables | None = None,
    match_ids: Collection[str] | None = None,
) -> Selection:
    """Keep what the rule says of one axis's proximity table (see `keep` for rules, `priority` for the order).

    The ranking is walked, and an item is passed over when its group has its cap, or its stratum its quota: so within a
    stratum the first by rank are kept, and as many as were asked wherever the pool allows.  `facts`: one row an id with
    the columns that the rule names (`facts_of`).  `others`: the proximity tables of the axes that `within` may name.
    `like`: ids of another selection, whose shares `matched` takes instead of the pool's.
    Where fewer can be kept, `asked` and `notes` say so.  Raises UndersongError for an empty pool, an amount out of
    range, several axes or harm sets, a rule that finds nothing, and columns, axes or items that are not there.
    """
    axis = single_axis(proximity)
    order, k, fraction = selection_order(proximity, rule, seed)
    limits = [_cap_limit(proximity, metadata, column, cap) for column, cap in rule.caps]
    strata = rule_strata(proximity, rule, metadata, other_tables)
    if strata is not None:
        limits.append((strata, _quota_limits(proximity, strata, order, k, match_ids)))
    elif match_ids is not None:
        raise UndersongError(f"{rule} has no shares to take from another selection; add e.g. +matched(speaker).")
    rows = take_within_limits(order, k, limits) if limits else order[:k].tolist()
    if not rows:
        raise UndersongError(f"No item of the pool is left by {rule}; loosen the rule.")
    id_column = proximity.column("id")
    ids = sorted(id_column[row].as_py() for row in rows)
    ranking = ranking_metadata(proximity)
    selection = Selection(
        axis=axis,
        score=ranking["score"] + (" centred" if ranking["centred"] else ""),
        kind=rule.kind,
        fraction=fraction,
        k=len(ids),
        seed=seed if rule.kind == "random" else None,
        ids=tuple(ids),
        ids_hash=ids_hash(ids),
        harm_set=ranking.get("harm_set", ""),
        rule="" if rule.is_simple else str(rule),
        asked=k if len(ids) < k else None,
    )
    within_axis = rule.within in (other_tables or {})
    notes = (*_selection_notes(rule, selection, strata, within_axis), *_missing_value_notes(rule, metadata))
    if match_ids is not None:
        notes = (*notes, f"Shares are those of another selection, ids hash {ids_hash(match_ids)}.")
    if other_tables and within_axis:
        residual = selection_residual(proximity, rule, selection, other_tables)
        notes = (*notes, residual.sentence)
    return dataclasses.replace(selection, notes=notes)


def rule_strata(
    proximity: pa.Table, rule: SelectionRule, metadata: pa.Table | None, other_tables: ProximityTables | None
) -> np.ndarray | None:
    """(n,) the stratum of every pool item under the rule; None where the rule has no strata."""
    ids = proximity.column("id")
    labels = [column_strata(ids, metadata, column) for column in rule.matched]
    if rule.within is not None:
        is_axis, is_column = (
            rule.within in (other_tables or {}),
            metadata is not None and rule.within in metadata.column_names,
        )
        if is_axis and is_column:
            raise UndersongError(f"{rule.within!r} is an axis and a column; rename one to select within it.")
        if other_tables and is_axis:
            labels.append(quantile_bins(scores_on_axis(ids, other_tables, rule.within).astype(np.float64), rule.strata))
        elif is_column:
            labels.append(column_strata(ids, metadata, rule.within, rule.strata))
        else:
            available = [
                *(other_tables or {}),
                *(name for name in (metadata.column_names if metadata else ()) if name != "id"),
            ]
            raise UndersongError(
                f"There is no axis or column {rule.within!r} to select within; there is {', '.join(available) or 'none'}."
            )
    return combine_strata(labels) if labels else None


def check_rule_columns(rule: SelectionRule, columns: Collection[str], axes: Collection[str]) -> None:
    """Raises UndersongError for a rule that names a column or an axis that is not there; measures nothing."""
    for column in (*(name for name, _ in rule.caps), *rule.matched):
        if column not in columns:
            available = ", ".join(name for name in columns if name != "id") or "none at all"
            raise UndersongError(f"The pool has no column {column!r} to select by; it has {available}.")
    if rule.within is not None and rule.within not in columns and rule.within not in axes:
        available = ", ".join([*axes, *(name for name in columns if name != "id")]) or "none"
        raise UndersongError(f"There is no axis or column {rule.within!r} to select within; there is {available}.")


def selection_residual(
    proximity: pa.Table, rule: SelectionRule, selection: Selection, other_tables: ProximityTables
) -> ResidualImbalance:
    """How much of the axis that `keep` selects within is still in the selection."""
    assert rule.within is not None, "the rule selects within an axis"
    ids, selected_ids = proximity.column("id").to_pylist(), set(selection.ids)
    base_rows, k, _ = selection_order(proximity, rule.base_rule, selection.seed or 0)
    other_axis_scores = scores_on_axis(proximity.column("id"), other_tables, rule.within)
    return residual_imbalance(
        rule.within,
        ids,
        ranking_scores(proximity),
        other_axis_scores,
        quantile_bins(other_axis_scores.astype(np.float64), rule.strata),
        [row for row, id in enumerate(ids) if id in selected_ids],
        base_rows[:k].tolist(),
        distant=rule.kind == "distant",
    )


def ids_hash(ids: Iterable[str]) -> str:
    """SHA-256 of the sorted ids joined by newlines: what makes two selections the same one."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def selection_to_json(selection: Selection) -> str:
    """What `selection.json` holds."""
    fields = dataclasses.asdict(selection)
    defaults = {field.name: field.default for field in dataclasses.fields(Selection)}
    non_default = {name: value for name, value in fields.items() if value != defaults[name]}
    return json.dumps(non_default, ensure_ascii=False, indent=1) + "\n"


def selection_from_json(text: str) -> Selection:
    """The selection a `selection.json` holds.  Raises UndersongError when it is none or was edited."""
    try:
        fields = json.loads(text)
        lists = {name: tuple(fields[name]) for name in ("ids", "notes") if name == "ids" or name in fields}
        selection = Selection(**{**fields, **lists})
    except (ValueError, TypeError, KeyError) as error:
        raise UndersongError(f"Not a selection ({error}); give a selection.json that screen or run wrote.") from None
    if ids_hash(selection.ids) != selection.ids_hash or len(selection.ids) != selection.k:
        raise UndersongError("The selection's ids do not fit its ids_hash and k: it was edited; make it again.")
    return selection


def _missing_value_notes(rule: SelectionRule, metadata: pa.Table | None) -> list[str]:
    """A note for each column of the rule that some of the pool has no value in."""
    if metadata is None:
        return []
    notes = []
    for column, purpose in (*((name, "cap") for name, _ in rule.caps), *((name, "match") for name in rule.matched)):
        values = metadata.column(column)
        lacking = values.null_count + sum(value != value for value in values.to_pylist() if isinstance(value, float))
        effect = "each counts as one of its own" if purpose == "cap" else "they are matched as a value of their own"
        if lacking == len(values):
            notes.append(f"No item has a {column}, so the {purpose} by it does nothing.")
        elif lacking:
            notes.append(f"{lacking} of {len(values)} items have no {column}; {effect}.")
    return notes


def _cap_limit(proximity: pa.Table, metadata: pa.Table | None, column: str, cap: int) -> tuple[np.ndarray, np.ndarray]:
    labels = sorted_label_codes(
        cluster_labels(proximity.column("id"), metadata, column)
    )  # an item without a value is its own
    return labels, np.full(int(labels.max()) + 1, cap)


def _quota_limits(
    proximity: pa.Table, strata: np.ndarray, order: np.ndarray, k: int, match_ids: Collection[str] | None
) -> np.ndarray:
    target = None
    if match_ids is not None:
        match_set = set(match_ids)
        rows = [row for row, id in enumerate(proximity.column("id").to_pylist()) if id in match_set]
        if len(rows) < len(match_set) or not rows:
            raise UndersongError(
                f"{len(match_set) - len(rows)} of the {len(match_set)} items to match are not in this pool; match with a "
                "selection of the same pool."
            )
        target = strata[rows]
    quota = stratum_quotas(strata[order], k, target)
    return np.pad(quota, (0, int(strata.max()) + 1 - len(quota)))


def _selection_notes(
    rule: SelectionRule, selection: Selection, strata: np.ndarray | None, within_axis: bool
) -> tuple[str, ...]:
    notes = []
    if selection.asked is not None:
        limits = [f"at most {cap} of one {column}" for column, cap in rule.caps]
        limits += ["a quota for each stratum"] if strata is not None else []
        notes.append(f"{selection.k} of the {selection.asked} asked for could be kept: {' and '.join(limits)}.")
    if strata is not None:
        sizes = np.bincount(strata)
        sizes = sizes[sizes > 0]
        if singles := int((sizes == 1).sum()):
            notes.append(f"{singles} of {len(sizes)} strata hold one item: there nothing is matched or separated.")
        if len(sizes) > selection.k:
            notes.append(f"There are {len(sizes)} strata for {selection.k} items: not all can have their share.")
        if len(sizes) == 1:
            notes.append("All items are in one stratum: the rule is the plain one.")
        elif rule.within is not None and not rule.matched and within_axis and len(sizes) < rule.strata:
            notes.append(f"Equal scores on {rule.within} leave {len(sizes)} of {rule.strata} strata.")
    return tuple(notes)
