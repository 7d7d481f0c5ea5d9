"""Select pool items by a rule: their order (closest, distant or random), caps, matching and strata."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.escaping import describe_error
from undersong.proximity.rules import RULE_EXAMPLES, SelectionRule, floor_count, resolve_amount
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
    """The selected ids, and what is needed to select them again. Selections with the same `ids_hash` are one
    selection."""

    axis: str
    score: str  # nearest | knn:K | centroid, with " centered" if the pool's mean was subtracted
    kind: str  # closest | distant | random | band | below | above
    fraction: float  # requested share; k / n if the rule has a count or a threshold
    k: int
    seed: int | None  # seed of the random draw; None for other kinds
    ids: tuple[str, ...]  # sorted
    ids_hash: str  # SHA-256 of the sorted ids joined by "\n"
    # The fields below are written to the file only if they differ from their defaults.
    harm_set: str = ""  # the harm set, if the table has several
    rule: str = ""  # the whole rule, if it has more than kind and amount
    asked: int | None = None  # requested count, if fewer items could be kept
    notes: tuple[str, ...] = ()  # what could not be reached or not be separated


def select_by_kind(proximity: pa.Table, kind: str, amount: float | int, seed: int = 0) -> Selection:
    """Select by KIND:AMOUNT from the proximity table of one axis.

    `closest` keeps the first ranks and `distant` the last, so no tie puts an id into both. `random` keeps the head of a
    permutation of the sorted ids by `numpy.random.default_rng(seed)`, so a smaller share is part of a larger one.

    Args:
        proximity: Proximity table of one axis and one harm set.
        kind: closest, distant, random, below or above.
        amount: A float is a share in (0, 1], of which floor(share x n) items and at least 1 are kept; an int is a
            count.
        seed: Seed of a random draw.

    Raises:
        UndersongError: The pool is empty, the amount is out of range, or the table has several axes.
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
    """Select by a rule from the proximity table of one axis (`parse_rule` for rules, `selection_order` for the order).

    Items are taken in order. An item is skipped if its group has reached its cap, or its stratum its quota. So within a
    stratum the first by rank are kept, and as many as requested if the pool allows it; otherwise `asked` and `notes` of
    the selection say so.

    Args:
        proximity: Proximity table of one axis and one harm set.
        rule: The selection rule.
        seed: Seed of a random draw.
        metadata: Table with one row per id and the columns that the rule names (`sample_metadata_table`).
        other_tables: Proximity tables of the axes that `within` may name.
        match_ids: Ids of another selection, whose shares `matched` takes instead of the pool's.

    Raises:
        UndersongError: The pool is empty, the amount is out of range, there are several axes or harm sets, no item fits
            the rule, or a column, axis or item is missing.
    """
    axis = single_axis(proximity)
    order, k, fraction = selection_order(proximity, rule, seed)
    limits = [_cap_limit(proximity, metadata, column, cap) for column, cap in rule.caps]
    strata = rule_strata(proximity, rule, metadata, other_tables)
    if strata is not None:
        limits.append((strata, _quota_limits(proximity, strata, order, k, match_ids)))
    elif match_ids is not None:
        raise UndersongError(f"{rule} matches nothing to another selection; add for example +matched(speaker).")
    rows = take_within_limits(order, k, limits) if limits else order[:k].tolist()
    if not rows:
        raise UndersongError(f"No item of the pool fits {rule}; loosen the rule.")
    id_column = proximity.column("id")
    ids = sorted(id_column[row].as_py() for row in rows)
    ranking = ranking_metadata(proximity)
    selection = Selection(
        axis=axis,
        score=ranking["score"] + (" centered" if ranking["centered"] else ""),
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
    """Stratum (n,) of every pool item under a rule; None if the rule has no strata.

    Args:
        proximity: Proximity table of one axis.
        rule: The selection rule.
        metadata: Table with one row per id and the columns that the rule names.
        other_tables: Proximity tables of the axes that `within` may name.

    Raises:
        UndersongError: A column or axis is missing, or `within` names both.
    """
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
                f"There is no axis or column {rule.within!r} to select within; "
                f"choose one of {', '.join(available) or 'none'}."
            )
    return combine_strata(labels) if labels else None


def check_rule_columns(rule: SelectionRule, columns: Collection[str], axes: Collection[str]) -> None:
    """Check that the columns and axes of a rule exist, without measuring anything.

    Raises:
        UndersongError: The rule names a missing column or axis.
    """
    for column in (*(name for name, _ in rule.caps), *rule.matched):
        if column not in columns:
            available = ", ".join(name for name in columns if name != "id") or "none at all"
            raise UndersongError(f"The pool has no column {column!r} to select by; it has {available}.")
    if rule.within is not None and rule.within not in columns and rule.within not in axes:
        available = ", ".join([*axes, *(name for name in columns if name != "id")]) or "none"
        raise UndersongError(f"There is no axis or column {rule.within!r} to select within; choose one of {available}.")


def selection_residual(
    proximity: pa.Table, rule: SelectionRule, selection: Selection, other_tables: ProximityTables
) -> ResidualImbalance:
    """Measure how much of the axis that a rule selects within is left in the selection.

    Args:
        proximity: Proximity table of the selection's axis.
        rule: The selection's rule; its `within` names an axis.
        selection: The selection.
        other_tables: Proximity tables of the other axes.
    """
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
    """SHA-256 of the sorted ids joined by newlines: the identity of a selection."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def selection_to_json(selection: Selection) -> str:
    """Content of `selection.json`."""
    fields = dataclasses.asdict(selection)
    defaults = {field.name: field.default for field in dataclasses.fields(Selection)}
    non_default = {name: value for name, value in fields.items() if value != defaults[name]}
    return json.dumps(non_default, ensure_ascii=False, indent=1) + "\n"


def selection_from_json(text: str, source: str = "The text") -> Selection:
    """Read the content of a `selection.json`; `source` names it in messages.

    Raises:
        UndersongError: The text is not a selection, or was edited.
    """
    advice = "give a selection.json that screen or run wrote"
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict) or "ids" not in fields:
            raise UndersongError(f"{source} is no selection (it has no ids); {advice}.")
        lists = {name: tuple(fields[name]) for name in ("ids", "notes") if name == "ids" or name in fields}
        selection = Selection(**{**fields, **lists})
    except (ValueError, TypeError, KeyError) as error:
        raise UndersongError(f"{source} is no selection ({describe_error(error)}); {advice}.") from None
    if ids_hash(selection.ids) != selection.ids_hash or len(selection.ids) != selection.k:
        raise UndersongError(f"{source} has ids that do not fit its ids_hash and k: it was edited; make it again.")
    return selection


def _missing_value_notes(rule: SelectionRule, metadata: pa.Table | None) -> list[str]:
    """Notes for columns of the rule that lack values in the pool."""
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
    # An item without a value has a label of its own.
    labels = sorted_label_codes(cluster_labels(proximity.column("id"), metadata, column))
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
                f"{len(match_set) - len(rows)} of the {len(match_set)} items to match are not in this pool; "
                "match with a selection of the same pool."
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


def selection_order(proximity: pa.Table, rule: SelectionRule, seed: int = 0) -> tuple[np.ndarray, int, float]:
    """Order in which a rule selects the rows of a proximity table.

    `closest` goes up the ranks, `distant` down, and `random` along a permutation of the sorted ids by
    `numpy.random.default_rng(seed)`. So a smaller amount is part of a larger one, and no tie puts an item into both
    ends.

    Returns:
        Candidate rows in order, how many of them the rule keeps, and their share of the pool.

    Raises:
        UndersongError: The pool is empty, the amount is out of range, or no item fits.
    """
    import pyarrow.compute as pc

    n = len(proximity)
    if rule.kind == "random":
        k, fraction = resolve_amount(rule.amount, n)
        id_order = pc.sort_indices(proximity.column("id").combine_chunks()).to_numpy()
        return id_order[np.random.default_rng(seed).permutation(n)], k, fraction
    rank_order = pc.sort_indices(proximity, sort_keys=[("rank", "ascending"), ("id", "ascending")]).to_numpy()
    if rule.kind in ("closest", "distant"):
        k, fraction = resolve_amount(rule.amount, n)
        return rank_order[:: 1 if rule.kind == "closest" else -1], k, fraction
    if rule.kind == "band":
        assert rule.upper is not None, "a band has two ends"
        low, high = (floor_count(share, n) for share in (rule.amount, rule.upper))
        rows, fraction = rank_order[low:high], rule.upper - rule.amount
    elif rule.kind in RULE_EXAMPLES:
        values = ranking_scores(proximity)[rank_order]
        within_threshold = values < rule.amount if rule.kind == "below" else values > rule.amount
        rows = rank_order[within_threshold][:: 1 if rule.kind == "below" else -1]
        fraction = len(rows) / n
    else:
        raise UndersongError(f"Unknown selection kind {rule.kind!r}; choose one of {', '.join(RULE_EXAMPLES)}.")
    if len(rows) == 0:
        values = ranking_scores(proximity)
        raise UndersongError(
            f"No item of the pool of {n} is in {rule.base_rule}; its scores go from {values.min():.4g} to "
            f"{values.max():.4g}."
        )
    return rows, len(rows), fraction
