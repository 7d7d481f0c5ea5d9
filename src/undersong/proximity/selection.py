"""Which ids of the pool are kept: the closest, the most distant or random ones.  Knows ranks and ids only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from undersong.proximity.table import how
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = ("closest", "distant", "random")


@dataclass(frozen=True, slots=True)
class Selection:
    """The ids kept, and all that is needed to keep them again.  Two selections with one `ids_hash` are one."""

    axis: str
    score: str  # nearest | knn:K | centroid, with " centred" where the pool's mean was subtracted
    kind: str  # closest | distant | random
    fraction: float  # asked for; k / n where a count was
    k: int
    seed: int | None  # of the random draw; None for closest and distant, which draw nothing
    ids: tuple[str, ...]  # sorted
    ids_hash: str  # SHA-256 of the sorted ids joined by "\n"


def parse_keep(text: str) -> tuple[str, float | int]:
    """`closest:0.25` -> ("closest", 0.25); `distant:200` -> ("distant", 200): with a point a share, without a count."""
    kind, _, amount = text.partition(":")
    if kind not in KINDS:
        raise UndersongError(f"Cannot keep {text!r}; write KIND:AMOUNT with KIND one of {', '.join(KINDS)}.")
    try:
        return kind, int(amount) if amount.isdecimal() else float(amount)
    except ValueError:
        raise UndersongError(
            f"Cannot keep {text!r}; the amount is a share such as 0.25 or a count such as 200."
        ) from None


def select(proximity: pa.Table, kind: str, amount: float | int, seed: int = 0) -> Selection:
    """Keep `amount` of one axis's proximity table: a float is a share in (0, 1], of which floor(share x n) items and at
    least 1 are kept; an int is a count.

    `closest` are the first ranks, `distant` the last, so that no tie puts an id into both.  `random` is the head of a
    permutation of the sorted ids by `numpy.random.default_rng(seed)`: a smaller share is part of a larger one.
    Raises UndersongError for an empty pool, an amount out of range, or a table of several axes.
    """
    axes = proximity.column("axis").unique().to_pylist()
    if len(axes) > 1:
        raise UndersongError(f"The proximity table holds {len(axes)} axes ({', '.join(axes)}); select on one of them.")
    ids = proximity.column("id").to_pylist()
    k, fraction = count(amount, len(ids))
    if kind == "random":
        kept = _draw(sorted(ids), k, seed)
    elif kind in KINDS:
        ranked = [id for _, id in sorted(zip(proximity.column("rank").to_pylist(), ids))]
        kept = ranked[:k] if kind == "closest" else ranked[-k:]
    else:
        raise UndersongError(f"Unknown selection kind {kind!r}; choose one of {', '.join(KINDS)}.")
    facts = how(proximity)
    score = facts["score"] + (" centred" if facts["centred"] else "")
    drawn = seed if kind == "random" else None
    return Selection(axes[0], score, kind, fraction, k, drawn, tuple(sorted(kept)), ids_hash(kept))


def count(amount: float | int, n: int) -> tuple[int, float]:
    """How many of `n` an amount is, and which share.  0.29 of 100 is 29, though their product as floats is below it."""
    if n == 0:
        raise UndersongError("The pool is empty, so there is nothing to select; check the manifest or its filters.")
    if isinstance(amount, int):
        if not 1 <= amount <= n:
            raise UndersongError(f"Cannot keep {amount} of a pool of {n}; give a count from 1 to {n}.")
        return amount, amount / n
    if not (math.isfinite(amount) and 0 < amount <= 1):
        raise UndersongError(
            f"Cannot keep a share of {amount:g}; give a number above 0 and at most 1, or a whole count."
        )
    return max(1, math.floor(round(amount * n, 9))), float(amount)


def ids_hash(ids: Iterable[str]) -> str:
    """SHA-256 of the sorted ids joined by newlines: what makes two selections the same one."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def to_json(selection: Selection) -> str:
    """What `selection.json` holds."""
    return json.dumps(dataclasses.asdict(selection), ensure_ascii=False, indent=1) + "\n"


def from_json(text: str) -> Selection:
    """The selection a `selection.json` holds.  Raises UndersongError when it is none or was edited."""
    try:
        fields = json.loads(text)
        selection = Selection(**{**fields, "ids": tuple(fields["ids"])})
    except (ValueError, TypeError, KeyError) as error:
        raise UndersongError(f"Not a selection ({error}); give a selection.json that screen or run wrote.") from None
    if ids_hash(selection.ids) != selection.ids_hash or len(selection.ids) != selection.k:
        raise UndersongError("The selection's ids do not fit its ids_hash and k: it was edited; make it again.")
    return selection


def _draw(ids: list[str], k: int, seed: int) -> list[str]:
    import numpy as np

    return [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:k]]
