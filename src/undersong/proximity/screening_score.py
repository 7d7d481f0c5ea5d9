"""The screening score: how much closer a pool lies to a harm set than benign speech does, with cluster bootstrap
intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.strata import cluster_labels
from undersong.proximity.table import harm_set_names, ranking_metadata, ranking_scores, single_axis
from undersong.statistics.auc import probability_below, quantile_shares, rank_positions, value_shares
from undersong.statistics.bootstrap import Interval, cluster_bootstrap_weights, percentile_interval
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

SCORE_NAME = "screening score"
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """Shares of the pool below one threshold: the `q`-quantile of benign distances.

    `mass` is the mean over all items of how far they lie within the threshold, in units of distance.
    """

    q: float
    threshold: float
    share: Interval  # share of the pool closer than the threshold
    heldout_share: Interval  # the same share of held-out benign speech: q, if both benign sets are alike
    excess: Interval  # share - heldout_share
    mass: Interval
    heldout_mass: Interval


@dataclass(frozen=True, slots=True)
class ScreeningScore:
    """Measure of how much closer a pool is to harm than benign speech is.

    `value` is the probability that a pool item is closer to harm than a benign one, minus the same probability for a
    held-out benign item. It lies between -1 and 1, and is 0 for a pool like the held-out speech. It is the area between
    the two curves of share over q.

    It is not the probability of a jailbreak, and not a forecast of a JSR until arms have been run and the report shows
    how well it predicted them. It compares pools on one axis, encoder, harm set and benign corpus, and nothing across
    them. A pool that differs from the benign corpus in topic, microphone or language moves it as harm does. A few
    harmful items in a large pool hardly move it: the low end of the curve shows them.
    """

    name: str
    axis: str
    harm_set: str
    score: str
    n: tuple[int, int, int]  # items of the pool, the benign set and the held-out set
    clusters: tuple[int, int, int]
    value: Interval
    heldout: Interval  # the held-out set's own probability; 0.5 if both benign sets are alike
    curve: tuple[ThresholdPoint, ...]


def compute_screening_score(
    pool: pa.Table,
    benign: pa.Table,
    heldout: pa.Table | None = None,
    *,
    metadata: pa.Table | None = None,
    benign_metadata: pa.Table | None = None,
    quantiles: Sequence[float] = QUANTILES,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> ScreeningScore:
    """Screening score from the proximity tables of the pool and of benign speech.

    Args:
        pool: Proximity table of the pool.
        benign: Proximity table of benign speech.
        heldout: Proximity table of held-out benign speech; None splits `benign` into random halves by group.
        metadata: Table of the pool's items. With a column `group`, whole groups are resampled.
        benign_metadata: The same for both benign sets.
        quantiles: Quantiles of benign distances for the curve.
        draws: Number of bootstrap draws.
        seed: Seed of the split and of the bootstrap.
        level: Confidence level.

    Raises:
        UndersongError: The tables differ in axis, harm set or score, a table is centered (each on its own mean), an
            item is in two of them, or a quantile is not between 0 and 1.
    """
    quantile_values = np.asarray(quantiles, dtype=np.float64)
    if quantile_values.ndim != 1 or not ((quantile_values > 0) & (quantile_values < 1)).all():
        raise UndersongError(f"Quantiles lie between 0 and 1, not {list(quantiles)}; give for example {QUANTILES}.")
    if heldout is None:
        benign, heldout = _split_in_halves(benign, benign_metadata, seed)
    tables = (pool, benign, heldout)
    axis, harm_set, score = _common_ranking(tables)
    labels = [
        _item_clusters(table, table_metadata)
        for table, table_metadata in zip(tables, (metadata, benign_metadata, benign_metadata))
    ]
    clusters = [len(set(names)) for names in labels]
    scale = rank_positions([ranking_scores(table) for table in tables])

    def compute_statistics(weights: Sequence[np.ndarray]) -> np.ndarray:
        """Value, the held-out probability, then by quantile: share, held-out share, excess and both masses."""
        pool_shares, reference_shares, heldout_shares = (
            value_shares(scale, index, weights[index]) for index in range(3)
        )
        pool_below, heldout_below = (
            quantile_shares(scale.values, set_shares, reference_shares, quantile_values)
            for set_shares in (pool_shares, heldout_shares)
        )
        chances = [probability_below(set_shares, reference_shares) for set_shares in (pool_shares, heldout_shares)]
        by_q = np.stack(
            [
                pool_below.share,
                heldout_below.share,
                pool_below.share - heldout_below.share,
                pool_below.mass,
                heldout_below.mass,
            ]
        )
        return np.concatenate([[chances[0] - chances[1], chances[1]], by_q.T.reshape(-1)])

    unit_weights = [np.ones(len(table)) for table in tables]
    point_estimates = compute_statistics(unit_weights)
    streams = [
        cluster_bootstrap_weights(names, draws, child)
        for names, child in zip(labels, np.random.SeedSequence(seed).spawn(3))
    ]
    draw_values = np.array([compute_statistics(weights) for weights in zip(*streams, strict=True)])
    intervals = [
        percentile_interval(float(v), column, min(clusters), level) for v, column in zip(point_estimates, draw_values.T)
    ]
    thresholds = quantile_shares(
        scale.values, value_shares(scale, 0, unit_weights[0]), value_shares(scale, 1, unit_weights[1]), quantile_values
    ).thresholds
    points = tuple(
        ThresholdPoint(float(q), float(t), *intervals[2 + 5 * i : 7 + 5 * i])
        for i, (q, t) in enumerate(zip(quantile_values, thresholds))
    )
    n = (len(pool), len(benign), len(heldout))
    sizes = (clusters[0], clusters[1], clusters[2])
    return ScreeningScore(SCORE_NAME, axis, harm_set, score, n, sizes, intervals[0], intervals[1], points)


def _common_ranking(tables: Sequence[pa.Table]) -> tuple[str, str, str]:
    """Axis, harm set and score that all tables share."""
    rankings = {
        (single_axis(table), *harm_set_names(table)[:1], str(ranking_metadata(table)["score"])) for table in tables
    }
    if len(rankings) > 1:
        raise UndersongError(
            "The tables differ in axis, harm set or score "
            f"({'; '.join(' '.join(ranking) for ranking in sorted(rankings))}); screen pool and benign speech on one "
            "axis, to one harm set, by one score."
        )
    if any(ranking_metadata(table)["centered"] for table in tables):
        raise UndersongError(
            "Each table is centered on its own mean, so they cannot be compared; screen without centering."
        )
    ids = [set(table.column("id").to_pylist()) for table in tables]
    if shared_ids := sorted((ids[0] & ids[1]) | (ids[0] & ids[2]) | (ids[1] & ids[2])):
        raise UndersongError(
            f"{len(shared_ids)} items are in two of the pool, the benign set and the held-out set, the first "
            f"{shared_ids[0]}; remove them from one."
        )
    axis, *sets, score = next(iter(rankings))
    return axis, sets[0] if sets else "", score


def _item_clusters(table: pa.Table, metadata: pa.Table | None) -> list[str]:
    if metadata is None or "group" not in metadata.column_names:
        return table.column("id").to_pylist()
    return cluster_labels(table.column("id"), metadata)


def _split_in_halves(table: pa.Table, metadata: pa.Table | None, seed: int) -> tuple[pa.Table, pa.Table]:
    """Two random halves of a table, by whole groups."""
    labels = _item_clusters(table, metadata)
    names = sorted(set(labels))
    if len(names) < 2:
        raise UndersongError(
            "The benign speech is a single group and cannot be split into a benign set and a held-out set; add groups."
        )
    first_half = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]}
    in_first_half = np.array([label in first_half for label in labels])
    return table.filter(in_first_half), table.filter(~in_first_half)
