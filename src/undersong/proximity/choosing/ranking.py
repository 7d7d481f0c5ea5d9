"""In which order a rule looks at a pool, and how many it wants.  Knows ranks and ids only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.rules import RULE_EXAMPLES, SelectionRule
from undersong.proximity.table import ranking_scores
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa


def selection_order(proximity: pa.Table, rule: SelectionRule, seed: int = 0) -> tuple[np.ndarray, int, float]:
    """Rows in the order in which `keep` wants them (as many as it would take at all), how many of them, which share.

    `closest` goes up the ranks, `distant` down, `random` along a permutation of the sorted ids by
    `numpy.random.default_rng(seed)`: a smaller amount is part of a larger one, and no tie puts an item into both ends.
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
        low, high = (_floor_count(share, n) for share in (rule.amount, rule.upper))
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


def resolve_amount(amount: float | int, n: int) -> tuple[int, float]:
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
    return max(1, _floor_count(amount, n)), float(amount)


def _floor_count(share: float, n: int) -> int:
    return math.floor(round(share * n, 9))
