"""Selections alike in diversity: a cap on the samples of one group, and ties that favor no voice."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.rules import SelectionRule, resolve_amount
from undersong.proximity.table import ranking_scores

if TYPE_CHECKING:
    import pyarrow as pa


def spread_over_groups(rule: SelectionRule, metadata: pa.Table, ids: Collection[str], share: float) -> SelectionRule:
    """Add a cap on the samples of one group to a rule, so that arms are alike in diversity.

    A ranking can fill its closest quarter with all voices of few requests, and a random draw never does. The cap is the
    smallest with which groups of equal size would fill the selection from `share` of all groups.

    Args:
        rule: A rule with an amount.
        metadata: Table with one row per id and a column `group`.
        ids: Ids of the pool.
        share: Least share of the pool's groups that a selection is to reach, in (0, 1].

    Returns:
        The rule with `+group<=k`; the rule itself if no group has more than k samples.
    """
    wanted = set(ids)
    sizes: dict[str | None, int] = {}
    single = 0  # a sample without a group is a group of its own
    for id, group in zip(metadata.column("id").to_pylist(), metadata.column("group").to_pylist()):
        if id in wanted and group is None:
            single += 1
        elif id in wanted:
            sizes[group] = sizes.get(group, 0) + 1
    count, _ = resolve_amount(rule.amount, len(wanted))
    cap = max(1, math.ceil(round(count / (share * (len(sizes) + single)), 9)))
    if cap >= max(sizes.values(), default=1):
        return rule
    return dataclasses.replace(rule, caps=(*rule.caps, ("group", cap)))


def shuffle_ties(proximity: pa.Table) -> pa.Table:
    """Proximity table whose ties are ranked by a hash of the ids.

    Ids often end with the voice. By id, a cap of two keeps the same two voices of every text whose voices are equally
    near; by a hash it keeps any. Nothing is drawn, so the ranks are the same in every run.
    """
    ids = proximity.column("id").to_pylist()
    digests = np.array([hashlib.sha256(id.encode()).hexdigest() for id in ids])
    rank = np.empty(len(ids), dtype=np.int64)
    rank[np.lexsort((digests, ranking_scores(proximity)))] = np.arange(1, len(ids) + 1)
    return proximity.set_column(proximity.column_names.index("rank"), "rank", [rank])
