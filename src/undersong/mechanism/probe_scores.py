"""What probes score on prompts they were not fitted on, and how it changes between two models.

Intervals are bootstraps over clusters, never narrower than the rule of three allows: probes that err on no cluster, or
change on none, have shown that of so many clusters and no more.  The interval of a change is also widened for what
fitting the probes anew would add (Nadeau and Bengio 2003, Machine Learning 52, 239-281): without that, simulated claims
of "no loss" were false in up to 8 % where 2.5 % was meant.  Knows decisions and labels; does not know states.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from undersong.mechanism.directions import late_layers
from undersong.mechanism.probe_fits import Blocks, balanced_accuracy
from undersong.statistics import Interval, cluster_draws, holm, interval
from undersong.types import UndersongError

LEVEL = 0.05


@dataclass(frozen=True)
class Decided:
    """`decisions` (layers, prompts) of probes on prompts that they were not fitted on, above 0: harmful.

    `fold` (prompts,); `trained`: how many clusters each was fitted on.
    """

    blocks: Blocks
    trained: float
    fold: np.ndarray
    decisions: np.ndarray


@dataclass(frozen=True)
class Scores(Decided):
    """What is decided, beside the truth; AUC compares within a fold only.

    By layer (layers,), NaN where there is no probe: balanced accuracy and AUC with 95 % intervals, the mean of balanced
    accuracy under permuted labels (`chance`), its one-sided `p`, and `p_holm` corrected over layers.  `late`: mean
    balanced accuracy of the last quarter of layers, decided on beforehand, with its own `late_chance` and `late_p`.
    Probes are not refitted in a bootstrap draw: intervals are about these probes, on other clusters.
    """

    balanced_accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    auc: np.ndarray
    auc_low: np.ndarray
    auc_high: np.ndarray
    chance: np.ndarray
    p: np.ndarray
    p_holm: np.ndarray
    late: Interval
    late_chance: float
    late_p: float


def scored(
    blocks: Blocks,
    fold: np.ndarray,
    found: Iterable[np.ndarray | None],
    labels: np.ndarray,
    trained: float,
    draws: int,
    seed: np.random.SeedSequence,
) -> Scores:
    """`found` by layer: decisions (prompts, labellings), or (prompts, 1) of a probe that never saw these labels, or
    None.  `labels` (prompts, labellings), the true ones first; `fold` (blocks,)."""
    decisions, accuracy, late_accuracy = _rated(blocks, found, labels)
    late = _late(decisions)
    times, right = _times(blocks, draws, seed), _right(blocks, decisions)
    late_right = right[late].mean(axis=0) if late.any() else np.full(len(blocks.cluster), np.nan)
    rate, low, high = _columns(_ended(_mean_interval(blocks, layer, times)) for layer in right)
    auc, auc_low, auc_high = _columns(_ended(_auc(blocks, fold, layer, times)) for layer in decisions)
    p = [_p(layer) for layer in accuracy]
    corrected = holm([None if np.isnan(value) else value for value in p])
    return Scores(
        blocks=blocks,
        trained=trained,
        fold=fold[blocks.of],
        decisions=decisions,
        balanced_accuracy=rate,
        low=low,
        high=high,
        auc=auc,
        auc_low=auc_low,
        auc_high=auc_high,
        chance=accuracy[:, 1:].mean(axis=1),
        p=np.array(p),
        p_holm=np.array([np.nan if value is None else value for value in corrected]),
        late=_ended(_mean_interval(blocks, late_right, times)),
        late_chance=float(late_accuracy[1:].mean()),
        late_p=_p(late_accuracy),
    )


@dataclass(frozen=True)
class Told:
    """By layer (layers,) the balanced accuracy, NaN without a probe; `late`: its mean over the late layers."""

    balanced_accuracy: np.ndarray
    late: float
    late_p: float


def told(blocks: Blocks, found: Iterable[np.ndarray | None], labels: np.ndarray) -> Told:
    """What `scored` says without intervals, for many models."""
    _, accuracy, late_accuracy = _rated(blocks, found, labels)
    return Told(accuracy[:, 0], float(late_accuracy[0]), _p(late_accuracy))


def _rated(
    blocks: Blocks, found: Iterable[np.ndarray | None], labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisions (layers, prompts) on the true labels; balanced accuracy (layers, labellings), and its late mean."""
    prompts, labellings = labels.shape
    said, rates = [], []  # one layer's labellings at a time are held: they are large
    for layer in found:
        said.append(np.full(prompts, np.nan) if layer is None else layer[:, 0])
        none = np.full(labellings, np.nan)
        rates.append(none if layer is None else balanced_accuracy(layer, labels, blocks.share))
    decisions, accuracy = np.array(said), np.array(rates)
    late = _late(decisions)
    return decisions, accuracy, accuracy[late].mean(axis=0) if late.any() else np.full(labellings, np.nan)


def late_difference(before: Decided, after: Decided, draws: int, seed: int) -> Interval:
    """Late balanced accuracy of `after` minus that of `before`, paired over clusters.

    Raises UndersongError unless both are of the same prompts in the same folds, and have a late layer in common.
    """
    same = all(
        np.array_equal(a, b)
        for a, b in (
            (before.blocks.of, after.blocks.of),
            (before.blocks.harmful, after.blocks.harmful),
            (before.blocks.cluster, after.blocks.cluster),
            (before.fold, after.fold),
        )
    )
    if not same or before.decisions.shape != after.decisions.shape:
        raise UndersongError(
            "The probes before and after tuning are not of the same prompts, layers and folds; probe both models on "
            "one list of prompts, with one seed."
        )
    late = _late(before.decisions) & _late(after.decisions)
    if not late.any():
        raise UndersongError(
            "No late layer has a probe both before and after; check that its states vary over prompts."
        )
    now, was = (_right(before.blocks, scores.decisions)[late].mean(axis=0) for scores in (after, before))
    stretch = np.sqrt(1 + before.blocks.clusters / before.trained)
    return _ended(_mean_interval(before.blocks, now - was, _times(before.blocks, draws, seed), stretch), -1.0)


def _late(decisions: np.ndarray) -> np.ndarray:
    """(layers,) bool: the late layers that have a probe."""
    late = np.zeros(len(decisions), dtype=bool)
    late[late_layers(len(decisions) - 1)] = True
    return late & ~np.isnan(decisions[:, 0])


def _right(blocks: Blocks, decisions: np.ndarray) -> np.ndarray:
    """(layers, blocks): share of a block's prompts that are told right; NaN where there is no probe."""
    right = np.where(decisions == 0, 0.5, (decisions > 0) == blocks.harmful[blocks.of])
    return np.where(np.isnan(decisions), np.nan, right) @ blocks.average.T


def _times(blocks: Blocks, draws: int, seed: int | np.random.SeedSequence) -> np.ndarray:
    """(1 + draws, blocks): how often each block counts, as it is and then in each bootstrap draw of clusters."""
    drawn = [np.ones(blocks.clusters, dtype=np.int64), *cluster_draws(range(blocks.clusters), draws, seed)]
    return np.array(drawn)[:, blocks.cluster].astype(np.float64)


def _mean_interval(blocks: Blocks, values: np.ndarray, times: np.ndarray, stretch: float = 1.0) -> Interval:
    """Of values (blocks,): the mean over harmful and the mean over harmless blocks, averaged."""
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw may have no block of a kind: it has no value
        means = [(times[:, kind] @ values[kind]) / times[:, kind].sum(axis=1) for kind in _kinds(blocks)]
    return _resolved(blocks, (means[0] + means[1]) / 2, stretch)


def _kinds(blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(blocks.harmful), np.flatnonzero(~blocks.harmful)


def _auc(blocks: Blocks, fold: np.ndarray, decisions: np.ndarray, times: np.ndarray) -> Interval:
    """The chance that a harmful block lies above a harmless one of its fold: another fold's probe has another scale."""
    if np.isnan(decisions[0]):
        return Interval(float("nan"), None, None)
    above = (decisions[:, None] > decisions) + 0.5 * (decisions[:, None] == decisions)
    average = blocks.average
    compared = (blocks.harmful[:, None] & ~blocks.harmful & (fold[:, None] == fold)).astype(np.float64)
    won = compared * (average @ above @ average.T)
    with np.errstate(invalid="ignore"):
        return _resolved(blocks, ((times @ won) * times).sum(axis=1) / ((times @ compared) * times).sum(axis=1))


def _resolved(blocks: Blocks, drawn: np.ndarray, stretch: float = 1.0) -> Interval:
    """From the value and its draws (1 + draws,): the percentile interval, stretched, and not inside the rule of three.

    Of `units` independent clusters without one event, a share of up to 1 - 0.025^(1 / units) may still have it.
    """
    found = interval(float(drawn[0]), drawn[1:], blocks.clusters, 1 - LEVEL)
    if found.low is None or found.high is None:
        return found
    units = min(blocks.clusters, 2 * min(len(kind) for kind in _kinds(blocks)))
    least = 1 - (LEVEL / 2) ** (1 / units)
    below, above = (max(least, stretch * reach) for reach in (found.value - found.low, found.high - found.value))
    return Interval(found.value, found.value - below, found.value + above)


def _ended(found: Interval, least: float = 0.0) -> Interval:
    """The interval of a share ends at 0, of a difference at -1, and of either at 1."""
    if found.low is None or found.high is None:
        return found
    return Interval(found.value, max(least, found.low), min(1.0, found.high))


def _columns(found: Iterable[Interval]) -> np.ndarray:
    """(3, layers): value, low, high; None as NaN."""
    return np.array([(f.value, f.low, f.high) for f in found], dtype=np.float64).T


def _p(accuracy: np.ndarray) -> float:
    """One-sided, from (labellings,), the true one first and counted among them (Ojala and Garriga 2010)."""
    return float("nan") if np.isnan(accuracy[0]) else float((accuracy >= accuracy[0] - 1e-9).mean())
