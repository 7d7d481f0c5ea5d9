"""Which ids of the pool are kept, by which rule, and what could not be had.  Knows ranks, facts and ids only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.choosing.keep import Keep
from undersong.proximity.choosing.ranking import one_axis, priority
from undersong.proximity.choosing.remaining import Remaining, remaining
from undersong.proximity.choosing.strata import (
    bins,
    cluster_labels,
    codes,
    column_strata,
    joined,
    other_scores,
    quotas,
    walk,
)
from undersong.proximity.table import how, scores
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

Others = Mapping[str, "pa.Table"]


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


def select(proximity: pa.Table, kind: str, amount: float | int, seed: int = 0) -> Selection:
    """Keep `amount` of one axis's proximity table: a float is a share in (0, 1], of which floor(share x n) items and at
    least 1 are kept; an int is a count.  `choose` with the rule KIND:AMOUNT.

    `closest` are the first ranks, `distant` the last, so that no tie puts an id into both.  `random` is the head of a
    permutation of the sorted ids by `numpy.random.default_rng(seed)`: a smaller share is part of a larger one.
    Raises UndersongError for an empty pool, an amount out of range, or a table of several axes.
    """
    return choose(proximity, Keep(kind, amount), seed)


def choose(
    proximity: pa.Table,
    keep: Keep,
    seed: int = 0,
    *,
    facts: pa.Table | None = None,
    others: Others | None = None,
    like: Collection[str] | None = None,
) -> Selection:
    """Keep what the rule says of one axis's proximity table (see `keep` for rules, `priority` for the order).

    The ranking is walked, and an item is passed over when its group has its cap, or its stratum its quota: so within a
    stratum the first by rank are kept, and as many as were asked wherever the pool allows.  `facts`: one row an id with
    the columns that the rule names (`facts_of`).  `others`: the proximity tables of the axes that `within` may name.
    `like`: ids of another selection, whose shares `matched` takes instead of the pool's.
    Where fewer can be kept, `asked` and `notes` say so.  Raises UndersongError for an empty pool, an amount out of
    range, several axes or harm sets, a rule that finds nothing, and columns, axes or items that are not there.
    """
    axis = one_axis(proximity)
    order, k, fraction = priority(proximity, keep, seed)
    limits = [_cap(proximity, facts, column, most) for column, most in keep.caps]
    strata = strata_of(proximity, keep, facts, others)
    if strata is not None:
        limits.append((strata, _quotas(proximity, strata, order, k, like)))
    elif like is not None:
        raise UndersongError(f"{keep} has no shares to take from another selection; add e.g. +matched(speaker).")
    kept = walk(order, k, limits) if limits else order[:k].tolist()
    if not kept:
        raise UndersongError(f"No item of the pool is left by {keep}; loosen the rule.")
    id_column = proximity.column("id")
    ids = sorted(id_column[row].as_py() for row in kept)
    facts_said = how(proximity)
    selection = Selection(
        axis=axis,
        score=facts_said["score"] + (" centred" if facts_said["centred"] else ""),
        kind=keep.kind,
        fraction=fraction,
        k=len(ids),
        seed=seed if keep.kind == "random" else None,
        ids=tuple(ids),
        ids_hash=ids_hash(ids),
        harm_set=facts_said.get("harm_set", ""),
        rule="" if keep.plain else str(keep),
        asked=k if len(ids) < k else None,
    )
    by_axis = keep.within in (others or {})
    notes = (*_notes(keep, selection, strata, by_axis), *_without(keep, facts))
    if like is not None:
        notes = (*notes, f"Shares are those of another selection, ids hash {ids_hash(like)}.")
    if others and by_axis:
        left = left_over(proximity, keep, selection, others)
        notes = (*notes, left.sentence)
    return dataclasses.replace(selection, notes=notes)


def draw(proximity: pa.Table, keep: Keep, seeds: Sequence[int], **given: object) -> dict[int, Selection]:
    """Several random draws, one a seed; `given` as for `choose`.  Raises UndersongError where nothing is drawn."""
    if keep.kind != "random" or not seeds or len(set(seeds)) < len(seeds):
        raise UndersongError(
            f"{keep} cannot be drawn with seeds {list(seeds)}; several draws are of random, each with its own seed."
        )
    return {seed: choose(proximity, keep, seed, **given) for seed in seeds}  # type: ignore[arg-type]


def strata_of(proximity: pa.Table, keep: Keep, facts: pa.Table | None, others: Others | None) -> np.ndarray | None:
    """(n,) the stratum of every pool item under the rule; None where the rule has no strata."""
    ids = proximity.column("id")
    labels = [column_strata(ids, facts, column) for column in keep.matched]
    if keep.within is not None:
        is_axis, is_column = keep.within in (others or {}), facts is not None and keep.within in facts.column_names
        if is_axis and is_column:
            raise UndersongError(f"{keep.within!r} is an axis and a column; rename one to select within it.")
        if others and is_axis:
            labels.append(bins(other_scores(ids, others, keep.within).astype(np.float64), keep.strata))
        elif is_column:
            labels.append(column_strata(ids, facts, keep.within, keep.strata))
        else:
            there = [*(others or {}), *(name for name in (facts.column_names if facts else ()) if name != "id")]
            raise UndersongError(
                f"There is no axis or column {keep.within!r} to select within; there is {', '.join(there) or 'none'}."
            )
    return joined(labels) if labels else None


def check_rule(keep: Keep, columns: Collection[str], axes: Collection[str]) -> None:
    """Raises UndersongError for a rule that names a column or an axis that is not there; measures nothing."""
    for column in (*(name for name, _ in keep.caps), *keep.matched):
        if column not in columns:
            there = ", ".join(name for name in columns if name != "id") or "none at all"
            raise UndersongError(f"The pool has no column {column!r} to select by; it has {there}.")
    if keep.within is not None and keep.within not in columns and keep.within not in axes:
        there = ", ".join([*axes, *(name for name in columns if name != "id")]) or "none"
        raise UndersongError(f"There is no axis or column {keep.within!r} to select within; there is {there}.")


def left_over(proximity: pa.Table, keep: Keep, selection: Selection, others: Others) -> Remaining:
    """How much of the axis that `keep` selects within is still in the selection."""
    assert keep.within is not None, "the rule selects within an axis"
    ids, inside = proximity.column("id").to_pylist(), set(selection.ids)
    plain, k, _ = priority(proximity, keep.bare, selection.seed or 0)
    theirs = other_scores(proximity.column("id"), others, keep.within)
    return remaining(
        keep.within,
        ids,
        scores(proximity),
        theirs,
        bins(theirs.astype(np.float64), keep.strata),
        [row for row, id in enumerate(ids) if id in inside],
        plain[:k].tolist(),
        distant=keep.kind == "distant",
    )


def ids_hash(ids: Iterable[str]) -> str:
    """SHA-256 of the sorted ids joined by newlines: what makes two selections the same one."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def to_json(selection: Selection) -> str:
    """What `selection.json` holds."""
    says = dataclasses.asdict(selection)
    empty = {field.name: field.default for field in dataclasses.fields(Selection)}
    kept = {name: value for name, value in says.items() if value != empty[name]}
    return json.dumps(kept, ensure_ascii=False, indent=1) + "\n"


def from_json(text: str) -> Selection:
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


def _without(keep: Keep, facts: pa.Table | None) -> list[str]:
    """A note for each column of the rule that some of the pool has no value in."""
    if facts is None:
        return []
    notes = []
    for column, word in (*((name, "cap") for name, _ in keep.caps), *((name, "match") for name in keep.matched)):
        values = facts.column(column)
        lacking = values.null_count + sum(value != value for value in values.to_pylist() if isinstance(value, float))
        effect = "each counts as one of its own" if word == "cap" else "they are matched as a value of their own"
        if lacking == len(values):
            notes.append(f"No item has a {column}, so the {word} by it does nothing.")
        elif lacking:
            notes.append(f"{lacking} of {len(values)} items have no {column}; {effect}.")
    return notes


def _cap(proximity: pa.Table, facts: pa.Table | None, column: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    labels = codes(cluster_labels(proximity.column("id"), facts, column))  # an item without a value is its own
    return labels, np.full(int(labels.max()) + 1, most)


def _quotas(
    proximity: pa.Table, strata: np.ndarray, order: np.ndarray, k: int, like: Collection[str] | None
) -> np.ndarray:
    target = None
    if like is not None:
        wanted = set(like)
        rows = [row for row, id in enumerate(proximity.column("id").to_pylist()) if id in wanted]
        if len(rows) < len(wanted) or not rows:
            raise UndersongError(
                f"{len(wanted) - len(rows)} of the {len(wanted)} items to match are not in this pool; match with a "
                "selection of the same pool."
            )
        target = strata[rows]
    most = quotas(strata[order], k, target)
    return np.pad(most, (0, int(strata.max()) + 1 - len(most)))


def _notes(keep: Keep, selection: Selection, strata: np.ndarray | None, by_number: bool) -> tuple[str, ...]:
    notes = []
    if selection.asked is not None:
        why = [f"at most {most} of one {column}" for column, most in keep.caps]
        why += ["a quota for each stratum"] if strata is not None else []
        notes.append(f"{selection.k} of the {selection.asked} asked for could be kept: {' and '.join(why)}.")
    if strata is not None:
        sizes = np.bincount(strata)
        sizes = sizes[sizes > 0]
        if singles := int((sizes == 1).sum()):
            notes.append(f"{singles} of {len(sizes)} strata hold one item: there nothing is matched or separated.")
        if len(sizes) > selection.k:
            notes.append(f"There are {len(sizes)} strata for {selection.k} items: not all can have their share.")
        if len(sizes) == 1:
            notes.append("All items are in one stratum: the rule is the plain one.")
        elif keep.within is not None and not keep.matched and by_number and len(sizes) < keep.strata:
            notes.append(f"Equal scores on {keep.within} leave {len(sizes)} of {keep.strata} strata.")
    return tuple(notes)
