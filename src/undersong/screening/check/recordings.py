"""Whether clips are recorded as the ordinary ones are: if not, distances tell recordings apart and not requests."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.proximity.distances import nearest_distances
from undersong.proximity.neighbors import distances_to_others
from undersong.statistics.auc import probability_below, rank_positions, value_shares
from undersong.statistics.bootstrap import Interval, cluster_bootstrap_weights, percentile_interval

# How often a clip may lie farther from the ordinary clips, by log-mel, than these lie from each other. 0.5 is alike;
# docs/how-to/check.md has what was measured for the same voices, another voice and another recording.
MAX_APART = 0.8
DRAWS = 300


@dataclass(frozen=True, slots=True)
class RecordingCheck:
    """How far clips are apart from the ordinary ones, in sound: the data's, and those of the harm set."""

    data: Interval
    harm: Interval

    @property
    def data_obstacle(self) -> str | None:
        """Why no axis of clips can compare the data; None if they can."""
        return _sentence("your clips", self.data) if is_apart(self.data) else None

    @property
    def harm_obstacle(self) -> str | None:
        """Why an axis that compares clips with harmful clips cannot be used; None if it can."""
        return _sentence("the harmful clips", self.harm) if is_apart(self.harm) else None


def is_apart(interval: Interval) -> bool:
    """True if clips are too far apart in sound to be compared."""
    return interval.value > MAX_APART


def _sentence(clips: str, interval: Interval) -> str:
    bounds = "" if interval.low is None else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{clips} sound different from the ordinary ones (by log-mel, AUC {interval.value:.2f}{bounds})"


def recording_distance(
    vectors: np.ndarray,
    clusters: Sequence[Hashable],
    ordinary: np.ndarray,
    ordinary_clusters: Sequence[Hashable],
    seed: int,
) -> Interval:
    """Probability that a clip lies farther from its nearest ordinary clip than an ordinary clip does; 0.5 is alike.

    The nearest ordinary clip of an ordinary one is that of another cluster. The interval is over clusters of both.

    Args:
        vectors: Log-mel vectors of the clips, (n, d).
        clusters: Cluster of each clip.
        ordinary: Log-mel vectors of the ordinary clips, (m, d).
        ordinary_clusters: Cluster of each ordinary clip.
        seed: Seed of the bootstrap.
    """
    to_others = distances_to_others(ordinary, ordinary_clusters)
    scale = rank_positions([to_others, nearest_distances(vectors, ordinary, k=1).distance])

    def area(ordinary_weights: np.ndarray, weights: np.ndarray) -> float:
        return probability_below(value_shares(scale, 0, ordinary_weights), value_shares(scale, 1, weights))

    streams = [
        cluster_bootstrap_weights(names, DRAWS, child)
        for names, child in zip((ordinary_clusters, clusters), np.random.SeedSequence(seed).spawn(2), strict=True)
    ]
    drawn = np.array([area(*weights) for weights in zip(*streams, strict=True)])
    value = area(np.ones(len(ordinary)), np.ones(len(vectors)))
    return percentile_interval(value, drawn, min(len(set(clusters)), len(set(ordinary_clusters))))
