"""What a conditional selection could not separate: how much of the other axis is still in it.

Correlated axes cannot show that damage comes from how a thing sounds when its words are innocuous; this says how far
`closest` on one axis within strata of the other comes.  Knows scores and strata only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undersong.statistics import jaccard, spearman, standardized_difference

MIN_STRATUM_ITEMS = 3  # items of a stratum whose rank correlation says anything


@dataclass(frozen=True, slots=True)
class ResidualImbalance:
    """The kept items seen on the `other` axis.  `plain` is the same rule without its strata."""

    other: str
    strata: int
    singles: int  # strata of one item: nothing is separated there
    jaccard: float  # kept, and the as many closest (of a distant selection: most distant) on the other axis
    jaccard_plain: float
    jaccard_chance: float  # k / (2n - k): of unrelated selections, nearly
    spearman: float | None  # of the two axes over the pool; None where one is constant
    spearman_within: float | None  # its mean over the strata that have one, weighted by their items
    measured: int  # items in those strata
    shift: float  # standardised difference of the other axis's score, kept - pool: 0 is separated
    shift_plain: float
    distant: bool = False  # kept at the far end

    @property
    def sentence(self) -> str:
        """For a person to read."""
        within_text = "nowhere to be measured" if self.spearman_within is None else f"{self.spearman_within:.2f}"
        end = "most distant" if self.distant else "closest"
        pool_text = "not measurable" if self.spearman is None else f"{self.spearman:.2f}"
        return (
            f"Beside the {end} on {self.other}: Jaccard {self.jaccard:.2f} (without strata {self.jaccard_plain:.2f}, "
            f"unrelated {self.jaccard_chance:.2f}); score on {self.other} shifted by {self.shift:.2f} standard "
            f"deviations (without strata {self.shift_plain:.2f}); rank correlation of the axes within strata {within_text} "
            f"(pool {pool_text})."
        )


def residual_imbalance(
    other: str,
    ids: Sequence[str],
    axis_scores: np.ndarray,
    other_axis_scores: np.ndarray,
    strata: np.ndarray,
    selected_rows: Sequence[int],
    unstratified_rows: Sequence[int],
    distant: bool = False,
) -> ResidualImbalance:
    """From the pool's `ids` (n,), scores on both axes (n,), strata of the other axis (n,) and rows kept either way.

    `distant`: the selection is of the far end, and is compared with the other axis's far end.
    """
    n, k = len(ids), len(selected_rows)
    ranking = np.lexsort((np.array(ids), other_axis_scores))
    reference_rows = ranking[-k:] if distant else ranking[:k]
    sizes = np.bincount(np.unique(strata, return_inverse=True)[1])
    total, weight = 0.0, 0
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        if (
            len(rows) >= MIN_STRATUM_ITEMS
            and (correlation := _spearman(axis_scores[rows], other_axis_scores[rows])) is not None
        ):
            total, weight = total + correlation * len(rows), weight + len(rows)

    def overlap_with_reference(rows: Sequence[int] | np.ndarray) -> float:
        return jaccard([ids[row] for row in rows], [ids[row] for row in reference_rows])

    return ResidualImbalance(
        other=other,
        strata=len(sizes),
        singles=int((sizes == 1).sum()),
        jaccard=overlap_with_reference(selected_rows),
        jaccard_plain=overlap_with_reference(unstratified_rows),
        jaccard_chance=k / (2 * n - k),
        spearman=_spearman(axis_scores, other_axis_scores),
        spearman_within=total / weight if weight else None,
        measured=weight,
        shift=standardized_difference(other_axis_scores[list(selected_rows)], other_axis_scores),
        shift_plain=standardized_difference(other_axis_scores[list(unstratified_rows)], other_axis_scores),
        distant=distant,
    )


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """None where an axis is constant, and so ranks nothing."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearman(np.stack([a, b]).astype(np.float64))[0, 1])
