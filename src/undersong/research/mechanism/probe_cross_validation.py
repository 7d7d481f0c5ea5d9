"""Nested, grouped cross-validation of logistic probes for many label permutations at once. Arrays only."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from undersong.types import UndersongError

# Inverse penalties for rows of unit mean square length; divided by the dimension, they are scikit-learn's C.
INVERSE_PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
TOLERANCE = 1e-4  # gradient norm over weight norm; the penalty's curvature is 1, so it bounds the weights' error
MAX_STEPS = 20_000


@dataclass(frozen=True)
class PromptBlocks:
    """Prompts grouped into blocks of the same cluster and label.

    Attributes:
        block_index: Block of each prompt, (prompts,).
        prompt_weight: One over the number of prompts in the block, (prompts,).
        cluster_index: Cluster of each block, (blocks,).
        harmful: Label of each block, (blocks,).
        matched: True if the block's cluster has both labels, (blocks,).
    """

    block_index: np.ndarray
    prompt_weight: np.ndarray
    cluster_index: np.ndarray
    harmful: np.ndarray
    matched: np.ndarray

    @property
    def cluster_count(self) -> int:
        """Number of clusters, which is less than that of blocks if a cluster has both labels."""
        return int(self.cluster_index.max()) + 1

    @property
    def design(self) -> str:
        """`between` if no cluster has both labels, `matched` if each has, `mixed` if some have."""
        return "matched" if self.matched.all() else "mixed" if self.matched.any() else "between"

    @property
    def averaging_matrix(self) -> np.ndarray:
        """Matrix (blocks, prompts) that takes the mean over each block's prompts."""
        matrix = np.zeros((len(self.cluster_index), len(self.block_index)))
        matrix[self.block_index, np.arange(len(self.block_index))] = self.prompt_weight
        return matrix


def make_blocks(harmful: Sequence[bool] | np.ndarray, clusters: Sequence[Hashable]) -> PromptBlocks:
    """Group prompts into blocks; clusters are numbered in sorted order, so the order of prompts does not matter."""
    cluster_number = {name: i for i, name in enumerate(sorted(set(clusters), key=str))}
    cluster_label_pairs = np.array(
        [[cluster_number[name], bool(label)] for name, label in zip(clusters, harmful)], dtype=np.int64
    )
    block_keys, block_index, sizes = np.unique(cluster_label_pairs, axis=0, return_inverse=True, return_counts=True)
    block_index = block_index.ravel()
    return PromptBlocks(
        block_index,
        1 / sizes[block_index],
        block_keys[:, 0],
        block_keys[:, 1] == 1,
        np.bincount(block_keys[:, 0])[block_keys[:, 0]] == 2,
    )


def assign_folds(blocks: PromptBlocks, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of each block, (blocks,): whole clusters, shuffled and dealt out evenly within each kind of cluster.

    The kinds are harmful, benign and both. Given the folds, all labellings with these counts in each fold are equally
    likely, which makes permuting within folds exact; a greedy stratifier need not have this property.
    """
    block_kind = np.where(blocks.matched, 2, blocks.harmful.astype(int))
    fold = np.empty(blocks.cluster_count, dtype=np.int64)
    assigned = 0
    for selected_kind in (1, 0, 2):
        cluster_indices = rng.permutation(np.unique(blocks.cluster_index[block_kind == selected_kind]))
        fold[cluster_indices] = (assigned + np.arange(len(cluster_indices))) % folds
        assigned += len(cluster_indices)
    return fold[blocks.cluster_index]


def permute_labels(blocks: PromptBlocks, fold: np.ndarray, permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Labels (blocks, 1 + permutations): the true ones, then permuted ones.

    Labels of clusters with one label are permuted among those of the same fold. A cluster with both labels swaps its
    two sides as a whole, by a coin, because prompts of one side (voices of one text) are not exchangeable one by one
    with their counterparts.

    Args:
        blocks: The blocks.
        fold: Fold of each block, (blocks,).
        permutations: Number of permutations.
        rng: Generator of the permutations.
    """
    labels = np.repeat(blocks.harmful[:, None], 1 + permutations, axis=1)
    for fold_index in np.unique(fold):
        single_label_blocks = np.flatnonzero(~blocks.matched & (fold == fold_index))
        labels[single_label_blocks, 1:] = rng.permuted(labels[single_label_blocks, 1:], axis=0)
    swaps = rng.random((blocks.cluster_count, permutations)) < 0.5
    labels[:, 1:] ^= blocks.matched[:, None] & swaps[blocks.cluster_index]
    return labels


def balanced_weights(harmful: np.ndarray, prompt_weight: np.ndarray) -> np.ndarray:
    """Weights (prompts, labellings) of labels (prompts, labellings): half the weight for either label, equal blocks,
    mean 1."""
    weights = np.where(harmful, 0.0, prompt_weight[:, None])
    benign_weights = prompt_weight[:, None] - weights
    return len(prompt_weight) / 2 * (weights / weights.sum(axis=0) + benign_weights / benign_weights.sum(axis=0))


def balanced_accuracy(decisions: np.ndarray, harmful: np.ndarray, prompt_weight: np.ndarray) -> np.ndarray:
    """Balanced accuracy (labellings,) of decisions and labels (prompts, labellings); a decision of 0 is half right."""
    correct = np.where(decisions == 0, 0.5, (decisions > 0) == harmful)
    return (balanced_weights(harmful, prompt_weight) * correct).mean(axis=0)


def nested_decisions(
    states: np.ndarray, harmful: np.ndarray, prompt_weight: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """Out-of-fold decision values (prompts, labellings); above 0 means harmful.

    For each outer fold, the penalty is the one with the least log loss when each other fold is left out as well. A
    model without two folds thus serves as the inner model of both.

    Args:
        states: Hidden states, (prompts, dim).
        harmful: Labels, (prompts, labellings).
        prompt_weight: Weight of each prompt, (prompts,).
        fold: Fold of each prompt, (prompts,).
    """
    folds = int(fold.max()) + 1
    loss = np.zeros((folds, len(INVERSE_PENALTIES), harmful.shape[1]))
    for i, j in combinations(range(folds), 2):
        for k, decisions in enumerate(_regularization_path(states, (fold != i) & (fold != j), harmful, prompt_weight)):
            loss[i, k] += _log_loss(decisions, harmful, prompt_weight, fold == j)
            loss[j, k] += _log_loss(decisions, harmful, prompt_weight, fold == i)
    out_of_fold = np.empty(harmful.shape)
    for i in range(folds):
        train, test = fold != i, fold == i
        out_of_fold[test] = _decision_values(states, train, harmful, prompt_weight, _best_strengths(loss[i]))[test]
    return out_of_fold


def held_out_decisions(
    states: np.ndarray, harmful: np.ndarray, prompt_weight: np.ndarray, fold: np.ndarray, held_out: np.ndarray
) -> np.ndarray:
    """Decision values of held-out prompts by a probe fitted on all of the other prompts.

    Args:
        states: Hidden states, (prompts, dim).
        harmful: Labels, (prompts,).
        prompt_weight: Weight of each prompt, (prompts,).
        fold: Fold of each prompt, used to choose the penalty, (prompts,).
        held_out: Hidden states of the held-out prompts, (held-out prompts, dim).
    """
    labels = harmful[:, None]
    loss = np.zeros((len(INVERSE_PENALTIES), 1))
    for i in range(int(fold.max()) + 1):
        for k, decisions in enumerate(_regularization_path(states, fold != i, labels, prompt_weight)):
            loss[k] += _log_loss(decisions, labels, prompt_weight, fold == i)
    train = np.arange(len(states) + len(held_out)) < len(states)
    return _decision_values(np.concatenate([states, held_out]), train, labels, prompt_weight, _best_strengths(loss))[
        ~train, 0
    ]


def _best_strengths(loss: np.ndarray) -> np.ndarray:
    """Strength with the least loss, (labellings,), from losses (strengths, labellings); of equal losses the stronger
    penalty."""
    return np.array(INVERSE_PENALTIES)[loss.argmin(axis=0)]


def _log_loss(
    decisions: np.ndarray, harmful: np.ndarray, prompt_weight: np.ndarray, row_mask: np.ndarray
) -> np.ndarray:
    """Balanced log loss (labellings,) over the rows of `row_mask`."""
    labels = harmful[row_mask]
    signed_decisions = np.where(labels, decisions[row_mask], -decisions[row_mask])
    return (balanced_weights(labels, prompt_weight[row_mask]) * np.logaddexp(0, -signed_decisions)).mean(axis=0)


def _regularization_path(
    states: np.ndarray, train: np.ndarray, harmful: np.ndarray, prompt_weight: np.ndarray
) -> list[np.ndarray]:
    """Decisions (prompts, labellings) at each strength; every fit starts from the one before."""
    rows = principal_coordinates(states, train)
    decisions, weights = [], None
    for strength in INVERSE_PENALTIES:
        weights = fit_logistic(
            rows[train], harmful[train], prompt_weight[train], np.full(harmful.shape[1], strength), weights
        )
        decisions.append(rows @ weights[:-1] + weights[-1])
    return decisions


def _decision_values(
    states: np.ndarray, train: np.ndarray, harmful: np.ndarray, prompt_weight: np.ndarray, strengths: np.ndarray
) -> np.ndarray:
    """Decision values (all prompts, labellings); labels and weights may end with the training prompts."""
    rows, training_rows = principal_coordinates(states, train), train[: len(harmful)]
    weights = fit_logistic(rows[train], harmful[training_rows], prompt_weight[training_rows], strengths)
    return rows @ weights[:-1] + weights[-1]


def principal_coordinates(states: np.ndarray, train: np.ndarray) -> np.ndarray:
    """States (prompts, rank) standardized by the training rows and rotated to those rows' principal axes.

    Training rows have unit mean square length. Dimensions that are constant in training are left out.
    """
    training_rows = states[train].astype(np.float64)
    mean, standard_deviation = training_rows.mean(axis=0), training_rows.std(axis=0)
    # Rounding gives a constant of size 1e4 a spread of 1e-12.
    varying = standard_deviation > 1e-9 * np.abs(mean)
    rows = (states[:, varying] - mean[varying]) / (standard_deviation[varying] * np.sqrt(max(1, varying.sum())))
    training_rows = rows[train]
    is_wide = rows.shape[1] > len(training_rows)
    eigenvalues, axes = np.linalg.eigh(training_rows @ training_rows.T if is_wide else training_rows.T @ training_rows)
    nonzero = eigenvalues > 1e-10 * max(eigenvalues, default=0.0)
    return (
        (rows @ training_rows.T) @ (axes[:, nonzero] / np.sqrt(eigenvalues[nonzero]))
        if is_wide
        else rows @ axes[:, nonzero]
    )


def fit_logistic(
    rows: np.ndarray,
    harmful: np.ndarray,
    prompt_weight: np.ndarray,
    strengths: np.ndarray,
    initial_weights: np.ndarray | None = None,
) -> np.ndarray:
    """Fit logistic regressions for many labellings; returns weights (rank + 1, labellings), the free intercept last.

    Minimizes strength x sum of weighted log losses + |weights|^2 / 2 for each labelling. The curvature of the loss is
    at most a quarter of the weight (Böhning and Lindsay 1988), which gives a diagonal bound in these coordinates. Steps
    by this bound are accelerated, and restarted when they turn uphill (O'Donoghue and Candès 2015, arXiv 1204.3982).

    Args:
        rows: Centered rows with orthogonal columns, (prompts, rank).
        harmful: Labels, (prompts, labellings).
        prompt_weight: Weight of each prompt, (prompts,).
        strengths: Inverse penalty of each labelling, (labellings,).
        initial_weights: Starting point; None starts at 0.

    Raises:
        UndersongError: A fit did not converge.
    """
    from scipy.special import expit

    rows = np.column_stack([rows, np.ones(len(rows))])
    penalty = np.append(np.ones(rows.shape[1] - 1), 0.0)[:, None]
    signs = np.where(harmful, 1.0, -1.0)
    sample_weights = strengths * balanced_weights(harmful, prompt_weight)
    curvature_bounds = (rows**2).sum(axis=0)[:, None] * sample_weights.max(axis=0) / 4 + penalty
    weights = np.zeros(curvature_bounds.shape) if initial_weights is None else initial_weights
    lookahead, momentum = weights, np.ones(harmful.shape[1])
    solution, active = np.empty(curvature_bounds.shape), np.arange(harmful.shape[1])
    for _ in range(MAX_STEPS):
        gradient = penalty * lookahead - rows.T @ (sample_weights * signs * expit(-signs * (rows @ lookahead)))
        unconverged = np.linalg.norm(gradient, axis=0) > TOLERANCE * np.linalg.norm(lookahead, axis=0) + 1e-9
        if not unconverged.all():  # store labellings that have converged, and continue with the others
            solution[:, active[~unconverged]] = lookahead[:, ~unconverged]
            if not unconverged.any():
                return solution
            active, momentum = active[unconverged], momentum[unconverged]
            gradient, lookahead, weights, sample_weights, signs, curvature_bounds = (
                a[:, unconverged] for a in (gradient, lookahead, weights, sample_weights, signs, curvature_bounds)
            )
        step = lookahead - gradient / curvature_bounds - weights
        momentum = np.where((gradient * step).sum(axis=0) > 0, 1.0, momentum)
        next_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        weights = weights + step
        lookahead, momentum = weights + (momentum - 1) / next_momentum * step, next_momentum
    raise UndersongError(f"A probe did not converge in {MAX_STEPS} steps; check its states for extreme values.")
