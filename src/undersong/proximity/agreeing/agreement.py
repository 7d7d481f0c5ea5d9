"""Do axes, and selections, say the same?  Two that agree fully are one, whatever their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.choosing.ranking import resolve_amount
from undersong.proximity.table import ranking_scores
from undersong.statistics import closest_overlap, spearman
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class AxisAgreementMatrix:
    """Between axes, over the `n` items that all of them have: both matrices are (axes, axes)."""

    axes: tuple[str, ...]
    n: int
    fraction: float  # what counts as closest
    spearman: np.ndarray  # of the scores
    overlap_closest: np.ndarray  # share of the closest that two axes have in common


def axis_agreement_matrix(tables: Mapping[str, pa.Table], fraction: float = 0.25) -> AxisAgreementMatrix:
    """Agreement of axes (name -> its proximity table) by the score each is ranked by.

    Raises UndersongError when the axes have fewer than two items in common.
    """
    by_id = {axis: dict(zip(table.column("id").to_pylist(), ranking_scores(table))) for axis, table in tables.items()}
    common = sorted(set.intersection(*(set(values) for values in by_id.values()))) if by_id else []
    if len(common) < 2:
        raise UndersongError(
            f"Axes {', '.join(tables)} have {len(common)} items in common; embed the same pool on all."
        )
    values = np.array([[column[id] for id in common] for column in by_id.values()])
    k, _ = resolve_amount(fraction, len(common))
    return AxisAgreementMatrix(
        tuple(tables), len(common), fraction, spearman(values), closest_overlap(values, common, k)
    )
