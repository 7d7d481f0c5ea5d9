"""The screening score of a pool: how much closer to harm it is than harmless speech is, before any training.

Three sets of distances to one harm set on one axis: the pool's, those of harmless speech that sets the thresholds, and
those of held-out harmless speech, which says what the same numbers are for speech that is known to be harmless.
Knows proximity tables; does not know models or runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.proximity.choosing.ranking import harm_sets, one_axis
from undersong.proximity.choosing.strata import cluster_labels
from undersong.proximity.table import how, scores
from undersong.statistics import Interval, cluster_draws, interval
from undersong.statistics.closer import below, chance_below, placed, shares
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "screening score"
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Point:
    """At the `q`-quantile of harmless distances, which lies at `threshold`: what of the pool is closer than that.

    `mass` is the mean over all items of how far they are within the threshold, in units of distance.
    """

    q: float
    threshold: float
    share: Interval  # of the pool
    heldout_share: Interval  # q, where both harmless sets are alike
    excess: Interval  # share - heldout_share
    mass: Interval
    heldout_mass: Interval


@dataclass(frozen=True, slots=True)
class ScreeningScore:
    """`value`: the chance that a pool item is closer to harm than a harmless one, less that same chance of a held-out
    harmless item; from -1 to 1, 0 for a pool like the held-out speech.  It is the area between the two curves of share
    over q.

    What it does not claim: it is no probability of a jailbreak and no forecast of a JSR, until arms have been run and
    the report shows how well it foretold them.  It compares pools on one axis, encoder, harm set and harmless corpus,
    and nothing across them.  A pool that differs from the harmless corpus in topic, microphone or language moves it as
    harm does.  A few harmful items in a large pool hardly move it: look at the curve's low end for these.
    """

    name: str
    axis: str
    harm_set: str
    score: str
    n: tuple[int, int, int]  # pool, harmless, held out
    clusters: tuple[int, int, int]
    value: Interval
    heldout: Interval  # the held-out set's own chance; 0.5, where both harmless sets are alike
    curve: tuple[Point, ...]


def screening_score(
    pool: pa.Table,
    harmless: pa.Table,
    heldout: pa.Table | None = None,
    *,
    facts: pa.Table | None = None,
    harmless_facts: pa.Table | None = None,
    quantiles: Sequence[float] = QUANTILES,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> ScreeningScore:
    """From the proximity tables of the pool, of harmless speech, and of held-out harmless speech.

    Without `heldout` the harmless items are halved at random, whole groups together.  `facts` and `harmless_facts`
    (of both harmless sets) may have a column `group`: intervals are percentiles over whole groups, drawn anew in all
    three sets.  Raises UndersongError for tables of different axes, harm sets or scores, for centred ones (each is
    centred on its own mean), for items that are in two of them, and for quantiles outside 0 to 1.
    """
    asked = np.asarray(quantiles, dtype=np.float64)
    if asked.ndim != 1 or not ((asked > 0) & (asked < 1)).all():
        raise UndersongError(f"Quantiles lie between 0 and 1, not {list(quantiles)}; give for example {QUANTILES}.")
    if heldout is None:
        harmless, heldout = _halves(harmless, harmless_facts, seed)
    tables = (pool, harmless, heldout)
    axis, harm_set, score = _alike(tables)
    labels = [_labels(table, known) for table, known in zip(tables, (facts, harmless_facts, harmless_facts))]
    clusters = [len(set(names)) for names in labels]
    scale = placed([scores(table) for table in tables])

    def measured(weights: Sequence[np.ndarray]) -> np.ndarray:
        """value, the held-out set's chance, and then by quantile: share, held-out share, excess, both masses."""
        mine, reference, other = (shares(scale, which, weights[which]) for which in range(3))
        ours, theirs = (below(scale.values, side, reference, asked) for side in (mine, other))
        chances = [chance_below(side, reference) for side in (mine, other)]
        by_q = np.stack([ours.share, theirs.share, ours.share - theirs.share, ours.mass, theirs.mass])
        return np.concatenate([[chances[0] - chances[1], chances[1]], by_q.T.reshape(-1)])

    even = [np.ones(len(table)) for table in tables]
    whole = measured(even)
    streams = [
        cluster_draws(names, draws, child) for names, child in zip(labels, np.random.SeedSequence(seed).spawn(3))
    ]
    drawn = np.array([measured(weights) for weights in zip(*streams, strict=True)])
    found = [interval(float(v), column, min(clusters), level) for v, column in zip(whole, drawn.T)]
    at = below(scale.values, shares(scale, 0, even[0]), shares(scale, 1, even[1]), asked).at
    points = tuple(Point(float(q), float(t), *found[2 + 5 * i : 7 + 5 * i]) for i, (q, t) in enumerate(zip(asked, at)))
    n = (len(pool), len(harmless), len(heldout))
    sizes = (clusters[0], clusters[1], clusters[2])
    return ScreeningScore(NAME, axis, harm_set, score, n, sizes, found[0], found[1], points)


def _alike(tables: Sequence[pa.Table]) -> tuple[str, str, str]:
    """Axis, harm set and score that all tables share."""
    said = {(one_axis(table), *harm_sets(table)[:1], str(how(table)["score"])) for table in tables}
    if len(said) > 1:
        raise UndersongError(
            f"The tables are not alike ({'; '.join(' '.join(one) for one in sorted(said))}); screen pool and harmless "
            "speech on one axis, to one harm set, by one score."
        )
    if any(how(table)["centred"] for table in tables):
        raise UndersongError("Each table is centred on its own mean, so they cannot be compared; screen without it.")
    ids = [set(table.column("id").to_pylist()) for table in tables]
    if shared := sorted((ids[0] & ids[1]) | (ids[0] & ids[2]) | (ids[1] & ids[2])):
        raise UndersongError(
            f"{len(shared)} items are in two of the pool, the harmless and the held-out set, the first {shared[0]}; "
            "take them out of one."
        )
    axis, *sets, score = next(iter(said))
    return axis, sets[0] if sets else "", score


def _labels(table: pa.Table, facts: pa.Table | None) -> list[str]:
    if facts is None or "group" not in facts.column_names:
        return table.column("id").to_pylist()
    return cluster_labels(table.column("id"), facts)


def _halves(table: pa.Table, facts: pa.Table | None, seed: int) -> tuple[pa.Table, pa.Table]:
    """Two halves of a table by group, as the sorted names of groups fall to `seed`."""
    labels = _labels(table, facts)
    names = sorted(set(labels))
    if len(names) < 2:
        raise UndersongError(
            "One group of harmless speech cannot be halved into what is measured by and what is held out; give more."
        )
    first = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]}
    inside = np.array([label in first for label in labels])
    return table.filter(inside), table.filter(~inside)
