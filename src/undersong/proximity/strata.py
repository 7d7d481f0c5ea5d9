"""Strata of a pool by column values and score quantiles, quotas per stratum, and the imbalance that remains after
selecting within strata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.statistics.agreement import spearman
from undersong.statistics.balance import jaccard, standardized_difference
from undersong.types import Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa


DEFAULT_BINS = 4  # quantile bins of a numeric column
NUMERIC_COLUMNS = (
    "seconds",
    "answer",
)  # columns matched by size, not by value: for an answer, its number of characters


def sample_metadata_table(samples: Iterable[Sample]) -> pa.Table:
    """Table with one row per sample: id, speaker, group, seconds, text, answer, and every label of the manifest."""
    import pyarrow as pa

    samples = list(samples)
    labels = dict.fromkeys(name for sample in samples for name, _ in sample.labels)
    columns = {
        "id": pa.array([sample.id for sample in samples], pa.string()),
        "seconds": pa.array([sample.seconds for sample in samples], pa.float64()),
    }
    for name in ("speaker", "group", "text", "answer", *labels):
        if name not in columns:
            columns[name] = pa.array([sample.column(name) for sample in samples], pa.string())
    return pa.table(columns)


def align_column(ids: pa.ChunkedArray, metadata: pa.Table | None, column: str) -> pa.Array:
    """Values of a metadata column for `ids`, in their order.

    Raises:
        UndersongError: The column or an id is missing.
    """
    import pyarrow.compute as pc

    if metadata is None or column not in metadata.column_names:
        available = (
            ", ".join(name for name in metadata.column_names if name != "id") if metadata is not None else "none at all"
        )
        raise UndersongError(f"The pool has no column {column!r} to select by; it has {available}.")
    rows = pc.index_in(ids.combine_chunks(), value_set=metadata.column("id").combine_chunks())
    if rows.null_count:
        missing_id = ids[int(np.flatnonzero(rows.is_null().to_numpy(zero_copy_only=False))[0])].as_py()
        raise UndersongError(f"Pool item {missing_id} has no metadata ({column}); give the manifest that was screened.")
    return metadata.column(column).combine_chunks().take(rows)


def cluster_labels(ids: pa.ChunkedArray, metadata: pa.Table | None, column: str = "group") -> list[str]:
    """Group of each item by `column`; an item without a value is its own group, distinct from any group of that
    name."""
    return [
        f"value {value}" if value is not None else f"item {id}"
        for id, value in zip(ids.to_pylist(), align_column(ids, metadata, column).to_pylist())
    ]


def sorted_label_codes(labels: Sequence[object]) -> np.ndarray:
    """Integer codes (n,) from 0 of labels (n,), numbered in sorted order: independent of the order of items."""
    numbers = {label: i for i, label in enumerate(sorted(set(labels), key=str))}
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def quantile_bins(values: np.ndarray, bin_count: int) -> np.ndarray:
    """Quantile bins (n,) from 0 of numbers (n,); -1 for a missing number (NaN).

    A number's bin is that of its mean rank: equal numbers share a bin, and distinct ones give bins of equal size.
    """
    out, is_finite = np.full(len(values), -1), np.isfinite(values)
    _, inverse, counts = np.unique(values[is_finite], return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - counts / 2
    out[is_finite] = np.floor(mean_ranks / max(1, is_finite.sum()) * bin_count).astype(np.int64)[inverse]
    return out


def column_strata(
    ids: pa.ChunkedArray, metadata: pa.Table | None, column: str, bin_count: int = DEFAULT_BINS
) -> np.ndarray:
    """Codes (n,) of a column's values; for a number, or the length of an answer, of its quantile bin.

    Args:
        ids: Ids of the items, (n,).
        metadata: Table with one row per id.
        column: The column.
        bin_count: Number of quantile bins.

    Raises:
        UndersongError: The column or an id is missing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = align_column(ids, metadata, column)
    if column == "answer":
        values = pc.utf8_length(values)
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return quantile_bins(values.cast(pa.float64()).to_numpy(zero_copy_only=False), bin_count)
    if column == "group":
        return sorted_label_codes(cluster_labels(ids, metadata))
    return sorted_label_codes(values.to_pylist())


def combine_strata(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Codes (n,) of the combinations of several labels (n,)."""
    return np.unique(np.stack(labels), axis=1, return_inverse=True)[1].reshape(-1)


def stratum_quotas(strata: np.ndarray, k: int, target: np.ndarray | None = None) -> np.ndarray:
    """Quotas (strata,) that split `k` items over strata, by the largest remainder of their shares (Hamilton's method).

    If remainders are equal, the stratum whose next item comes first gets the item: if every item is its own stratum,
    the first k are taken, not the first by name.

    Args:
        strata: Stratum codes in the order of selection, (n,).
        k: Number of items to select.
        target: Stratum codes (m,) whose shares are used; None uses the sizes of the strata.
    """
    stratum_count = int(max(strata.max(), -1 if target is None else target.max())) + 1
    sizes = np.bincount(strata, minlength=stratum_count)
    shares = sizes if target is None else np.bincount(target, minlength=stratum_count)
    quota, remainders = np.divmod(shares * k, shares.sum())
    by_stratum = np.argsort(strata, kind="stable")
    starts = np.cumsum(sizes) - sizes
    has_next = quota < sizes
    next_rank = np.full(stratum_count, len(strata))
    next_rank[has_next] = by_stratum[(starts + quota)[has_next]]
    extra = np.lexsort((next_rank, -remainders))[: k - int(quota.sum())]
    quota[extra] += 1
    return quota


def take_within_limits(order: Iterable[int], k: int, limits: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    """First `k` rows of `order` that respect every limit: (codes (n,), number allowed of each code)."""
    remaining_limits = [(labels.tolist(), allowed.tolist()) for labels, allowed in limits]
    rows: list[int] = []
    for row in order:
        if len(rows) == k:
            break
        if all(allowed[labels[row]] > 0 for labels, allowed in remaining_limits):
            rows.append(int(row))
            for labels, allowed in remaining_limits:
                allowed[labels[row]] -= 1
    return rows


def scores_on_axis(ids: pa.ChunkedArray, other_tables: Mapping[str, pa.Table], axis: str) -> np.ndarray:
    """Scores (n,) of another axis for `ids`.

    Raises:
        UndersongError: The axis lacks an item.
    """
    import pyarrow as pa

    from undersong.proximity.table import ranking_scores

    table = other_tables[axis]
    values = pa.table({"id": table.column("id"), axis: pa.array(ranking_scores(table))})
    return align_column(ids, values, axis).to_numpy(zero_copy_only=False)


MIN_STRATUM_ITEMS = 3  # a rank correlation needs at least this many items


@dataclass(frozen=True, slots=True)
class ResidualImbalance:
    """Selected items seen on the `other` axis; `_plain` fields are those of the same rule without its strata."""

    other: str
    strata: int
    singles: int  # strata of one item, in which nothing is separated
    jaccard: float  # overlap with equally many closest (for a distant selection: most distant) on the other axis
    jaccard_plain: float
    jaccard_chance: float  # k / (2n - k): about that of unrelated selections
    spearman: float | None  # correlation of the two axes over the pool; None if one is constant
    spearman_within: float | None  # mean correlation within strata, weighted by their items
    measured: int  # items in the strata that have a correlation
    shift: float  # standardized difference of the other axis's score, selection - pool; 0 if separated
    shift_plain: float
    distant: bool = False  # True for a selection of the most distant items

    @property
    def sentence(self) -> str:
        """Summary for readers, in one sentence."""
        within_text = "nowhere to be measured" if self.spearman_within is None else f"{self.spearman_within:.2f}"
        end = "most distant" if self.distant else "closest"
        pool_text = "not measurable" if self.spearman is None else f"{self.spearman:.2f}"
        return (
            f"Beside the {end} on {self.other}: Jaccard {self.jaccard:.2f} (without strata {self.jaccard_plain:.2f}, "
            f"unrelated {self.jaccard_chance:.2f}); score on {self.other} shifted by {self.shift:.2f} standard "
            f"deviations (without strata {self.shift_plain:.2f}); rank correlation of the axes within strata "
            f"{within_text} (pool {pool_text})."
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
    """Measure how much of another axis is left in a selection.

    Args:
        other: Name of the other axis.
        ids: Ids of the pool, (n,).
        axis_scores: Scores on the selection's axis, (n,).
        other_axis_scores: Scores on the other axis, (n,).
        strata: Strata of the other axis, (n,).
        selected_rows: Rows selected within strata.
        unstratified_rows: Rows selected by the same rule without strata.
        distant: True for a selection of the most distant items, which is compared with the other axis's most distant.
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
    """Rank correlation, or None if an axis is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearman(np.stack([a, b]).astype(np.float64))[0, 1])
