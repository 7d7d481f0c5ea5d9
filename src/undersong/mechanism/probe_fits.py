"""Nested, grouped cross-validation of logistic probes, for many labellings of the same prompts at once.

The independent unit is a cluster, and within it a *block*: the prompts of one cluster that have one label.  A block
counts once in training and in scores, however many prompts it has.  The fit is scikit-learn's L2 logistic regression
(tests hold it to that), solved in the coordinates of the training rows: with fewer prompts than dimensions their Gram
matrix holds all that the fit sees, and one decomposition serves every penalty and every permutation of labels, so that
each permutation can go through the whole nested procedure.  Knows arrays; does not know models or layers.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from undersong.types import UndersongError

# Inverse penalties C for rows of unit mean square length: divided by the dimension, it is scikit-learn's C.
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
TOLERANCE = 1e-4  # the gradient's length over the weights'; the penalty's curvature is 1, so it bounds their error
STEPS = 20_000


@dataclass(frozen=True)
class Blocks:
    """Of `of` (prompts,) the block of each; of every block its `cluster` and `harmful` (blocks,).

    `matched` (blocks,): its cluster has both labels.  `share` (prompts,): one over the block's number of prompts.
    """

    of: np.ndarray
    share: np.ndarray
    cluster: np.ndarray
    harmful: np.ndarray
    matched: np.ndarray

    @property
    def clusters(self) -> int:
        """How many clusters there are: fewer than blocks where a cluster has both labels."""
        return int(self.cluster.max()) + 1

    @property
    def design(self) -> str:
        """`between`: no cluster has both labels; `matched`: each has; `mixed`: some have."""
        return "matched" if self.matched.all() else "mixed" if self.matched.any() else "between"

    @property
    def average(self) -> np.ndarray:
        """(blocks, prompts): the matrix that takes the mean over each block's prompts."""
        matrix = np.zeros((len(self.cluster), len(self.of)))
        matrix[self.of, np.arange(len(self.of))] = self.share
        return matrix


def blocks_of(harmful: Sequence[bool] | np.ndarray, clusters: Sequence[Hashable]) -> Blocks:
    """Clusters are numbered in sorted order of their names, so where a prompt stands does not matter."""
    place = {name: i for i, name in enumerate(sorted(set(clusters), key=str))}
    pairs = np.array([[place[name], bool(label)] for name, label in zip(clusters, harmful)], dtype=np.int64)
    kinds, of, sizes = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    of = of.ravel()
    return Blocks(of, 1 / sizes[of], kinds[:, 0], kinds[:, 1] == 1, np.bincount(kinds[:, 0])[kinds[:, 0]] == 2)


def deal(blocks: Blocks, folds: int, rng: np.random.Generator) -> np.ndarray:
    """(blocks,) a fold for each: whole clusters, shuffled and dealt out evenly among each kind of cluster.

    Kinds: harmful, harmless, both.  Given the folds, all labellings with these counts in each are equally likely, which
    is what makes permuting within folds exact; a greedy stratifier need not have this.
    """
    kind = np.where(blocks.matched, 2, blocks.harmful.astype(int))
    fold = np.empty(blocks.clusters, dtype=np.int64)
    dealt = 0
    for which in (1, 0, 2):
        names = rng.permutation(np.unique(blocks.cluster[kind == which]))
        fold[names] = (dealt + np.arange(len(names))) % folds
        dealt += len(names)
    return fold[blocks.cluster]


def relabel(blocks: Blocks, fold: np.ndarray, permutations: int, rng: np.random.Generator) -> np.ndarray:
    """(blocks, 1 + permutations) labels: the true ones, then permuted ones.

    Labels of clusters that have one are permuted over those of the same fold.  A cluster that has both keeps its two
    sides and swaps them as a whole, by a coin: prompts of one side (voices of one text) are not exchangeable with each
    other's counterparts one by one.
    """
    labels = np.repeat(blocks.harmful[:, None], 1 + permutations, axis=1)
    for which in np.unique(fold):
        single = np.flatnonzero(~blocks.matched & (fold == which))
        labels[single, 1:] = rng.permuted(labels[single, 1:], axis=0)
    coins = rng.random((blocks.clusters, permutations)) < 0.5
    labels[:, 1:] ^= blocks.matched[:, None] & coins[blocks.cluster]
    return labels


def balanced_weights(harmful: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(prompts, labellings) from labels of that shape: half the weight on either label, every block alike; mean 1."""
    weights = np.where(harmful, 0.0, share[:, None])
    other = share[:, None] - weights
    return len(share) / 2 * (weights / weights.sum(axis=0) + other / other.sum(axis=0))


def balanced_accuracy(decisions: np.ndarray, harmful: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(labellings,) of decisions and labels (prompts, labellings); a decision of exactly 0 is half right."""
    right = np.where(decisions == 0, 0.5, (decisions > 0) == harmful)
    return (balanced_weights(harmful, share) * right).mean(axis=0)


def nested_decisions(states: np.ndarray, harmful: np.ndarray, share: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Out-of-fold decision values (prompts, labellings) of states (prompts, dim); above 0 says harmful.

    For each outer fold the penalty is the one with the least log loss when each other fold is left out as well; a model
    without two folds so serves as the inner model of both.  `harmful` (prompts, labellings), `fold` (prompts,).
    """
    folds = int(fold.max()) + 1
    loss = np.zeros((folds, len(STRENGTHS), harmful.shape[1]))
    for i, j in combinations(range(folds), 2):
        for k, said in enumerate(_path(states, (fold != i) & (fold != j), harmful, share)):
            loss[i, k] += _log_loss(said, harmful, share, fold == j)
            loss[j, k] += _log_loss(said, harmful, share, fold == i)
    out = np.empty(harmful.shape)
    for i in range(folds):
        train, out_of = fold != i, fold == i
        out[out_of] = _decisions(states, train, harmful, share, _best(loss[i]))[out_of]
    return out


def held_out_decisions(
    states: np.ndarray, harmful: np.ndarray, share: np.ndarray, fold: np.ndarray, held_out: np.ndarray
) -> np.ndarray:
    """(held-out prompts,) decision values of a probe fitted on all of states (prompts, dim) with labels (prompts,)."""
    labels = harmful[:, None]
    loss = np.zeros((len(STRENGTHS), 1))
    for i in range(int(fold.max()) + 1):
        for k, said in enumerate(_path(states, fold != i, labels, share)):
            loss[k] += _log_loss(said, labels, share, fold == i)
    train = np.arange(len(states) + len(held_out)) < len(states)
    return _decisions(np.concatenate([states, held_out]), train, labels, share, _best(loss))[~train, 0]


def _best(loss: np.ndarray) -> np.ndarray:
    """(strengths, labellings) -> (labellings,); of equal losses the stronger penalty."""
    return np.array(STRENGTHS)[loss.argmin(axis=0)]


def _log_loss(decisions: np.ndarray, harmful: np.ndarray, share: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(labellings,) balanced log loss over `rows`."""
    labels = harmful[rows]
    margin = np.where(labels, decisions[rows], -decisions[rows])
    return (balanced_weights(labels, share[rows]) * np.logaddexp(0, -margin)).mean(axis=0)


def _path(states: np.ndarray, train: np.ndarray, harmful: np.ndarray, share: np.ndarray) -> list[np.ndarray]:
    """Decisions (prompts, labellings) at each strength, every fit starting from the one before."""
    rows = coordinates(states, train)
    found, start = [], None
    for strength in STRENGTHS:
        start = logistic(rows[train], harmful[train], share[train], np.full(harmful.shape[1], strength), start)
        found.append(rows @ start[:-1] + start[-1])
    return found


def _decisions(
    states: np.ndarray, train: np.ndarray, harmful: np.ndarray, share: np.ndarray, strengths: np.ndarray
) -> np.ndarray:
    """(all prompts, labellings); labels and shares may stop where the training prompts do."""
    rows, used = coordinates(states, train), train[: len(harmful)]
    weights = logistic(rows[train], harmful[used], share[used], strengths)
    return rows @ weights[:-1] + weights[-1]


def coordinates(states: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(prompts, rank): states standardised by the training rows, turned to those rows' principal axes.

    Training rows have unit mean square length.  A dimension that is constant in training is left out.
    """
    fitted = states[train].astype(np.float64)
    middle, spread = fitted.mean(axis=0), fitted.std(axis=0)
    # rounding gives a constant of size 1e4 a spread of 1e-12
    varies = spread > 1e-9 * np.abs(middle)
    rows = (states[:, varies] - middle[varies]) / (spread[varies] * np.sqrt(max(1, varies.sum())))
    fitted = rows[train]
    wide = rows.shape[1] > len(fitted)
    size, axes = np.linalg.eigh(fitted @ fitted.T if wide else fitted.T @ fitted)
    kept = size > 1e-10 * max(size, default=0.0)
    return (rows @ fitted.T) @ (axes[:, kept] / np.sqrt(size[kept])) if wide else rows @ axes[:, kept]


def logistic(
    rows: np.ndarray, harmful: np.ndarray, share: np.ndarray, strengths: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    """Weights (rank + 1, labellings), the intercept last and free, of centred rows (prompts, rank), orthogonal columns.

    Minimises strength x sum of weighted log losses + |weights|^2 / 2 for each labelling.  The loss curves by at most a
    quarter of the weight (Böhning and Lindsay 1988), which in these coordinates is a diagonal bound; steps by it are
    accelerated and restarted where they turn uphill (O'Donoghue and Candès 2015, arXiv 1204.3982).
    """
    from scipy.special import expit

    rows = np.column_stack([rows, np.ones(len(rows))])
    penalty = np.append(np.ones(rows.shape[1] - 1), 0.0)[:, None]
    signs = np.where(harmful, 1.0, -1.0)
    pull = strengths * balanced_weights(harmful, share)
    bound = (rows**2).sum(axis=0)[:, None] * pull.max(axis=0) / 4 + penalty
    place = np.zeros(bound.shape) if start is None else start
    ahead, pace = place, np.ones(harmful.shape[1])
    found, left = np.empty(bound.shape), np.arange(harmful.shape[1])
    for _ in range(STEPS):
        slope = penalty * ahead - rows.T @ (pull * signs * expit(-signs * (rows @ ahead)))
        going = np.linalg.norm(slope, axis=0) > TOLERANCE * np.linalg.norm(ahead, axis=0) + 1e-9
        if not going.all():  # a labelling that has settled is set down, so that one slow one does not hold up the rest
            found[:, left[~going]] = ahead[:, ~going]
            if not going.any():
                return found
            left, pace = left[going], pace[going]
            slope, ahead, place, pull, signs, bound = (a[:, going] for a in (slope, ahead, place, pull, signs, bound))
        step = ahead - slope / bound - place
        pace = np.where((slope * step).sum(axis=0) > 0, 1.0, pace)
        faster = (1 + np.sqrt(1 + 4 * pace**2)) / 2
        place = place + step
        ahead, pace = place + (pace - 1) / faster * step, faster
    raise UndersongError(f"A probe did not settle in {STEPS} steps; check that its states are not of wild sizes.")
