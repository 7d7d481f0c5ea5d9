"""Which axis does a model hear?  Agreement of axes with intervals over items, before any training.

Knows proximity tables and vectors of one pool; does not know encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.choosing.ranking import count, one_axis
from undersong.proximity.choosing.strata import cluster_labels
from undersong.proximity.table import scores
from undersong.statistics import Interval, cluster_draws, interval
from undersong.statistics.cka import Cka, linear_cka
from undersong.statistics.resampled import Ranked, mid_ranks, ranked, weighted_correlation, weighted_overlap
from undersong.types import Embeddings, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

MEASURES = ("spearman", "overlap", "cka")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two axes over the `n` items both have, with percentile intervals over `clusters` clusters of items."""

    a: str
    b: str
    n: int
    clusters: int
    spearman: Interval  # of the scores; ties share their mean rank
    overlap: Interval  # share of the closest k in common, ties falling at random; unrelated axes share `chance`
    chance: float
    tied: tuple[float, float]  # share of items of a, and of b, whose score another item has too
    cka: Interval | None  # linear, debiased; None without vectors, or where too few items leave nothing to compare
    cka_plain: float | None  # the published estimate, which is large with few items whatever they are


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Every reference axis against the internal one.

    `leads`: measure -> axis -> share of draws in which the axis agrees most with the internal one (equals share);
    empty where no draw could tell.
    `hears`: measure -> the axis that agrees most, where the interval of its lead over each other axis is above 0; else
    None: these items cannot tell.
    """

    internal: str
    pairs: tuple[Pair, ...]
    leads: dict[str, dict[str, float]]
    hears: dict[str, str | None]


def axis_pairs(
    tables: Mapping[str, pa.Table],
    *,
    vectors: Mapping[str, Embeddings] | None = None,
    facts: pa.Table | None = None,
    fraction: float = 0.25,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Pair, ...]:
    """Agreement of each two axes (name -> proximity table of one harm set), over the items that all axes have.

    `vectors` (the pool's, by axis) add CKA.  `facts` with a column `group`: whole groups are drawn, because one
    question in eleven accents is one item.  Simulated coverage of nominal 95 % intervals: Spearman .91 to .96, overlap
    .95 to 1, debiased CKA .91 to 1 (60 to 300 items).  Raises UndersongError with fewer than two common items, and
    for constant scores.
    """
    pairs = list(combinations(tables, 2))
    return _measured(tables, pairs, vectors, facts, fraction, draws, seed, level)[0]


def fingerprint(
    references: Mapping[str, pa.Table],
    internal: pa.Table,
    *,
    vectors: Mapping[str, Embeddings] | None = None,
    facts: pa.Table | None = None,
    fraction: float = 0.25,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Fingerprint:
    """Each reference axis against the model's own; all from the same draws, so that leads are paired.

    Given as for `axis_pairs`; the internal axis is named by its table.  It says which axis the model's distances go
    along with on this pool and harm set, not what the model does with them.
    """
    name = one_axis(internal)
    if name in references or not references:
        raise UndersongError(f"The internal axis {name!r} needs reference axes of other names beside it.")
    pairs = [(axis, name) for axis in references]
    found, drawn = _measured({**references, name: internal}, pairs, vectors, facts, fraction, draws, seed, level)
    leads, hears = {}, {}
    for measure in MEASURES[: 2 if vectors is None else 3]:
        values = drawn[measure]
        known = values[np.isfinite(values).all(axis=1)]
        most = known == known.max(axis=1, keepdims=True, initial=-np.inf)
        share = (most / most.sum(axis=1, keepdims=True)).mean(axis=0) if len(known) else ()
        leads[measure] = {axis: float(part) for axis, part in zip(references, share)}
        hears[measure] = _hears(measure, found, values, level)
    return Fingerprint(name, found, leads, hears)


def _hears(measure: str, pairs: Sequence[Pair], drawn: np.ndarray, level: float) -> str | None:
    """The axis that leads every other one by more than its interval; one axis alone leads nothing."""
    found = [getattr(pair, measure) for pair in pairs]
    if None in found:
        return None
    values = np.array([one.value for one in found])
    first = int(values.argmax())
    others = [i for i in range(len(pairs)) if i != first]
    lows = [
        interval(values[first] - values[i], drawn[:, first] - drawn[:, i], pairs[first].clusters, level).low
        for i in others
    ]
    return pairs[first].a if lows and all(low is not None and low > 0 for low in lows) else None


def _measured(
    tables: Mapping[str, pa.Table],
    pairs: Sequence[tuple[str, str]],
    vectors: Mapping[str, Embeddings] | None,
    facts: pa.Table | None,
    fraction: float,
    draws: int,
    seed: int,
    level: float,
) -> tuple[tuple[Pair, ...], dict[str, np.ndarray]]:
    """The pairs, and by measure its values in every draw (draws, pairs)."""
    ids, axes = _common(tables, vectors)
    k, _ = count(fraction, len(ids))
    clusters = _clusters(ids, facts)
    ckas = [_cka(ids, vectors[a], vectors[b]) for a, b in pairs] if vectors is not None else None
    even = np.ones(len(ids), dtype=np.int64)
    whole = _values(axes, pairs, even, fraction)
    for (a, b), value in zip(pairs, whole["spearman"]):
        if np.isnan(value):
            raise UndersongError(f"All scores of axis {a} or {b} are equal, so it ranks nothing; check its encoder.")
    drawn = {measure: np.full((draws, len(pairs)), np.nan) for measure in MEASURES}
    for i, weights in enumerate(cluster_draws(clusters, draws, seed)):
        for measure, values in _values(axes, pairs, weights, fraction).items():
            drawn[measure][i] = values
        if ckas is not None:
            drawn["cka"][i] = [cka.drawn_debiased(weights) for cka in ckas]
    many = len(set(clusters))

    def with_interval(measure: str, i: int, value: float) -> Interval:
        return interval(value, drawn[measure][:, i], many, level)

    found = tuple(
        Pair(
            a=a,
            b=b,
            n=len(ids),
            clusters=many,
            spearman=with_interval("spearman", i, whole["spearman"][i]),
            overlap=with_interval("overlap", i, whole["overlap"][i]),
            chance=k / len(ids),
            tied=(axes[a].tied, axes[b].tied),
            cka=with_interval("cka", i, debiased) if (debiased := _debiased(ckas, i)) is not None else None,
            cka_plain=None if ckas is None else ckas[i].value,
        )
        for i, (a, b) in enumerate(pairs)
    )
    return found, drawn


def _values(
    axes: Mapping[str, Ranked], pairs: Sequence[tuple[str, str]], weights: np.ndarray, fraction: float
) -> dict[str, list[float]]:
    """Both rank measures of every pair in a draw."""
    k, _ = count(fraction, int(weights.sum()))
    ranks = {axis: mid_ranks(made, weights) for axis, made in axes.items()}
    return {
        "spearman": [weighted_correlation(ranks[a], ranks[b], weights) for a, b in pairs],
        "overlap": [weighted_overlap(axes[a], axes[b], weights, k) for a, b in pairs],
    }


def _common(
    tables: Mapping[str, pa.Table], vectors: Mapping[str, Embeddings] | None
) -> tuple[list[str], dict[str, Ranked]]:
    """Items that all have, sorted, and every axis's scores of them made ready."""
    by_id = {}
    for axis, table in tables.items():
        one_axis(table)
        by_id[axis] = dict(zip(table.column("id").to_pylist(), scores(table).tolist()))
        if vectors is not None and axis not in vectors:
            raise UndersongError(f"There are no vectors of axis {axis}; give them for every axis, or for none.")
    sides = [set(values) for values in by_id.values()] + [set(vectors[a].ids) for a in tables if vectors is not None]
    ids = sorted(set.intersection(*sides)) if sides else []
    if len(ids) < 2:
        raise UndersongError(f"Axes {', '.join(tables)} have {len(ids)} items in common; embed the same pool on all.")
    return ids, {axis: ranked(np.array([values[id] for id in ids])) for axis, values in by_id.items()}


def _clusters(ids: Sequence[str], facts: pa.Table | None) -> Sequence[str]:
    import pyarrow as pa

    if facts is None or "group" not in facts.column_names:
        return ids
    return cluster_labels(pa.chunked_array([list(ids)], pa.string()), facts)


def _cka(ids: Sequence[str], a: Embeddings, b: Embeddings) -> Cka:
    rows = []
    for side in (a, b):
        place = {id: row for row, id in enumerate(side.ids)}
        rows.append(np.array([place[id] for id in ids]))
    return linear_cka(a.vectors[rows[0]], b.vectors[rows[1]])


def _debiased(ckas: Sequence[Cka] | None, i: int) -> float | None:
    return None if ckas is None else ckas[i].debiased
