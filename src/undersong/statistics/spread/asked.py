"""What a choice of prompts does to runs that are all asked the same: to all alike, and to each alone.

Knows outcomes (runs, prompts) and clusters of prompts; does not know what a run is.  Clusters are taken as a sample, as
in `clusters.clustering`, of which this is the form for several rows: a covariance instead of a variance.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import sqrt

import numpy as np

from undersong.statistics.clusters import label_codes
from undersong.statistics.spread.mean_squares import MeanSquare
from undersong.types import UndersongError


def cluster_residuals(outcomes: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """(runs, clusters): what each cluster's prompts add to each run's mean; a run's sum is 0.

    Raises UndersongError where `clusters` are not one a prompt, or are all the same.
    """
    if len(clusters) != outcomes.shape[1]:
        raise UndersongError(
            f"There are {outcomes.shape[1]} prompts and {len(clusters)} cluster labels; give one each."
        )
    index = label_codes(clusters)
    if index.max() == 0:
        raise UndersongError("All prompts are of one cluster, so nothing tells how prompts differ; give rates alone.")
    totals = np.zeros((int(index.max()) + 1, len(outcomes)))
    np.add.at(totals, index, (outcomes - outcomes.mean(axis=1, keepdims=True)).T)
    return totals.T / outcomes.shape[1]


def common_prompt_squares(residuals: np.ndarray, groups: Sequence[np.ndarray]) -> list[tuple[float, MeanSquare]]:
    """The variance that prompts give to the means of all `groups` of runs alike, as weighted mean squares.

    `parts` (runs, clusters) as `residuals` gives them; `groups`: run numbers.  The sum is the mean covariance of two
    groups' means over sampled clusters: the variance of the mean of all groups, less what is each group's own in it.
    One group's own part cannot be told from the common one.
    """
    means = np.stack([residuals[rows].mean(axis=0) for rows in groups])
    total_square = (1.0, _square_over_clusters(means.mean(axis=0) ** 2, 1))
    if len(groups) == 1:
        return [total_square]
    return [total_square, (-1 / len(groups), _square_over_clusters(means.var(axis=0, ddof=1), len(groups) - 1))]


def _square_over_clusters(squares: np.ndarray, df_per_cluster: int) -> MeanSquare:
    """Of `squares` (clusters,), each of `each` degrees of freedom: their sum is a variance of a mean over clusters.

    The variance of the squares themselves says how sure that is, as outcomes are zeros and ones and not normal.
    """
    clusters, total = len(squares), float(squares.sum())
    df, squares_variance = df_per_cluster * (clusters - 1), clusters * float(squares.var(ddof=1))
    return MeanSquare(
        total * clusters / (clusters - 1), df, min(df, 2 * total**2 / squares_variance) if squares_variance > 0 else df
    )


def run_prompt_sd(residuals: np.ndarray, replicates: Sequence[np.ndarray]) -> float | None:
    """Standard deviation that prompts give to a run's mean alone, beside what its replicates share.

    `replicates`: run numbers of runs that were told to do the same.  None where there are none.
    """
    replicated = [rows for rows in replicates if len(rows) > 1]
    if not replicated:
        return None
    clusters = residuals.shape[1]
    squares = sum(float(((residuals[rows] - residuals[rows].mean(axis=0)) ** 2).sum()) for rows in replicated)
    return sqrt(clusters / (clusters - 1) * squares / sum(len(rows) - 1 for rows in replicated))
