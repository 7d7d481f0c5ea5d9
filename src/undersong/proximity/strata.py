"""Strata of a pool by column values and score quantiles, quotas per stratum, and the imbalance that remains after
selecting within strata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.statistics import jaccard, spearman, standardized_difference
from undersong.types import Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa


DEFAULT_BINS = 4  # of a length
NUMERIC_COLUMNS = ("seconds", "answer")  # columns that are matched by size, not by value: of an answer, its characters


def sample_metadata_table(samples: Iterable[Sample]) -> pa.Table:
    """One row a sample: id, speaker, group, seconds, text, answer, and every label of the manifest."""
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
    """The column's values for `ids`, in their order.  Raises UndersongError where the column or an id is not there."""
    import pyarrow.compute as pc

    if metadata is None or column not in metadata.column_names:
        available = (
            ", ".join(name for name in metadata.column_names if name != "id") if metadata is not None else "none at all"
        )
        raise UndersongError(f"The pool has no column {column!r} to select by; it has {available}.")
    rows = pc.index_in(ids.combine_chunks(), value_set=metadata.column("id").combine_chunks())
    if rows.null_count:
        missing_id = ids[int(np.flatnonzero(rows.is_null().to_numpy(zero_copy_only=False))[0])].as_py()
        raise UndersongError(f"Pool item {missing_id} has no facts ({column}); give the manifest that was screened.")
    return metadata.column(column).combine_chunks().take(rows)


def cluster_labels(ids: pa.ChunkedArray, metadata: pa.Table | None, column: str = "group") -> list[str]:
    """What each item belongs to: its `column`, or itself where it has none, told apart from a group of that name."""
    return [
        f"value {value}" if value is not None else f"item {id}"
        for id, value in zip(ids.to_pylist(), align_column(ids, metadata, column).to_pylist())
    ]


def sorted_label_codes(labels: Sequence[object]) -> np.ndarray:
    """Labels (n,) -> integers (n,) from 0, numbered in sorted order: independent of the order of items."""
    numbers = {label: i for i, label in enumerate(sorted(set(labels), key=str))}
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def quantile_bins(values: np.ndarray, bin_count: int) -> np.ndarray:
    """(n,) numbers -> quantile bins (n,) from 0; -1 where the number is missing (NaN).

    A number's bin is that of its mean rank, so that equal ones share a bin and different ones make bins of one size.
    """
    out, is_finite = np.full(len(values), -1), np.isfinite(values)
    _, inverse, counts = np.unique(values[is_finite], return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - counts / 2
    out[is_finite] = np.floor(mean_ranks / max(1, is_finite.sum()) * bin_count).astype(np.int64)[inverse]
    return out


def column_strata(
    ids: pa.ChunkedArray, metadata: pa.Table | None, column: str, bin_count: int = DEFAULT_BINS
) -> np.ndarray:
    """(n,) codes: the column's value; for a number, or the length of an answer, its quantile bin."""
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
    """(n,) codes of the combinations of several labels (n,)."""
    return np.unique(np.stack(labels), axis=1, return_inverse=True)[1].reshape(-1)


def stratum_quotas(strata: np.ndarray, k: int, target: np.ndarray | None = None) -> np.ndarray:
    """(strata,) how many of `k` each stratum gets, by largest remainder of its share (Hamilton).

    `strata` (n,) codes in the order in which items are wanted.  Shares are the strata's own sizes, or those of `target`
    (m,) codes.  Of equal remainders the stratum whose next item is wanted first has it: where every item is a stratum
    of its own, the first k are taken and not the first by name.
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
    """The first `k` rows of `order` that keep within every limit: (codes (n,), how many of each code may enter)."""
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
    """(n,) scores of another axis for `ids`.  Raises UndersongError where it lacks an item."""
    import pyarrow as pa

    from undersong.proximity.table import ranking_scores

    table = other_tables[axis]
    values = pa.table({"id": table.column("id"), axis: pa.array(ranking_scores(table))})
    return align_column(ids, values, axis).to_numpy(zero_copy_only=False)


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
