"""Do axes, and selections, say the same?  Two that agree fully are one, whatever their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.choosing.ranking import count
from undersong.proximity.choosing.selection import Selection
from undersong.proximity.table import scores
from undersong.statistics import jaccard, overlap_closest, spearman
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Agreement:
    """Between axes, over the `n` items that all of them have: both matrices are (axes, axes)."""

    axes: tuple[str, ...]
    n: int
    fraction: float  # what counts as closest
    spearman: np.ndarray  # of the scores
    overlap_closest: np.ndarray  # share of the closest that two axes have in common


def axes_agreement(tables: Mapping[str, pa.Table], fraction: float = 0.25) -> Agreement:
    """Agreement of axes (name -> its proximity table) by the score each is ranked by.

    Raises UndersongError when the axes have fewer than two items in common.
    """
    by_id = {axis: dict(zip(table.column("id").to_pylist(), scores(table))) for axis, table in tables.items()}
    common = sorted(set.intersection(*(set(values) for values in by_id.values()))) if by_id else []
    if len(common) < 2:
        raise UndersongError(
            f"Axes {', '.join(tables)} have {len(common)} items in common; embed the same pool on all."
        )
    values = np.array([[column[id] for id in common] for column in by_id.values()])
    k, _ = count(fraction, len(common))
    return Agreement(tuple(tables), len(common), fraction, spearman(values), overlap_closest(values, common, k))


def overlaps(selections: Mapping[str, Selection]) -> dict[str, dict[str, float]]:
    """For every labelled selection its Jaccard overlap with each of the others."""
    return {
        label: {other: jaccard(mine.ids, theirs.ids) for other, theirs in selections.items() if other != label}
        for label, mine in selections.items()
    }


def same_as(selections: Mapping[str, Selection]) -> dict[str, list[str]]:
    """For every labelled selection the others that hold the very same ids: arms on them are one arm."""
    return {
        label: [o for o, theirs in selections.items() if o != label and theirs.ids_hash == mine.ids_hash]
        for label, mine in selections.items()
    }
