"""Is harm still recognised where it is no longer refused?  Linear probes for harmfulness by layer, and their change.

A probe (Alain and Bengio 2016, arXiv 1610.01644) tells whether harmful and harmless prompts can be told apart from the
hidden state at the last prompt token, by scores of prompts it was not fitted on (`probe_fits`).  Refusal and
harmfulness are encoded apart (Zhao et al. 2025, arXiv 2507.11878), so either can go without the other.  Chance is
measured, by permuting labels over clusters through the whole procedure (Ojala and Garriga 2010, JMLR 11, 1833-1863).
What a probe can read the model need not use (Belinkov 2021, arXiv 2102.12452), and a probe also reads whatever else
tells the two sets apart (length, wording): match them.  Knows arrays; does not know models, files or refusals.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.mechanism.probe_fits import Blocks, blocks_of, deal, held_out_decisions, nested_decisions, relabel
from undersong.mechanism.probe_scores import LEVEL, Decided, Scores, Told, scored, told
from undersong.types import UndersongError

NOTE_CONSTANT = "Layers {layers} are constant over the prompts and have no probe."
NOTE_FEW = "{permutations} permutations cannot tell one of {layers} layers after Holm's correction; it takes {needed}."


@dataclass(frozen=True)
class ProbeSet:
    """Hidden states (layers + 1, prompts, dim) at the last prompt token, [0] the decoder's input; which prompts are
    harmful, and the cluster of each (prompts,): a behaviour with its voices, or a matched pair."""

    states: np.ndarray
    harmful: Sequence[bool] | np.ndarray
    clusters: Sequence[Hashable]
    name: str  # what errors call it


@dataclass(frozen=True)
class Probe:
    """`folds`: out-of-fold scores.  `held_out`: of a set in no fold, by probes fitted on all of the other.

    `design`: how labels were permuted: `between` clusters (each has one label), `matched` (each has both: its sides
    were swapped), `mixed` (either as the cluster demands).
    """

    design: str
    folds: Scores
    held_out: Scores | None
    notes: tuple[str, ...] = ()


def probe(
    fitted: ProbeSet,
    seed: int,
    held_out: ProbeSet | None = None,
    folds: int = 5,
    permutations: int = 999,
    draws: int = 1000,
) -> Probe:
    """Nested cross-validation by cluster on `fitted`; with `held_out`, also a fit on all of it that is scored there.

    Raises UndersongError for states that are not finite, shapes that do not fit, fewer than 2 x folds clusters of a
    label, or a cluster in both sets.
    """
    blocks = _foldable(fitted, folds, permutations)
    if held_out is not None:
        _disjoint(fitted, held_out)
    for_folds, for_labels, for_draws = np.random.SeedSequence(seed).spawn(3)
    fold = deal(blocks, folds, np.random.default_rng(for_folds))
    labels = relabel(blocks, fold, permutations, np.random.default_rng(for_labels))[blocks.of]
    found = (
        nested_decisions(layer, labels, blocks.share, fold[blocks.of]) if _varies(layer) else None
        for layer in fitted.states
    )
    scores = scored(blocks, fold, found, labels, blocks.clusters * (1 - 1 / folds), draws, for_draws)
    elsewhere = None
    if held_out is not None:
        decisions = decide(fitted, held_out, seed, folds)
        elsewhere = score(decisions, held_out.harmful, held_out.clusters, blocks.clusters, seed, permutations, draws)
    return Probe(blocks.design, scores, elsewhere, _notes(fitted, permutations))


def decide(fitted: ProbeSet, held_out: ProbeSet, seed: int, folds: int = 5) -> np.ndarray:
    """(layers + 1, held-out prompts) decision values of probes fitted on all of the other set, above 0: harmful.

    NaN at a layer that is constant there.  Their penalties are chosen by cross-validation in the other set alone.
    """
    blocks = _foldable(fitted, folds)
    _disjoint(fitted, held_out)
    _checked(held_out, least=1)
    (for_folds,) = np.random.SeedSequence(seed).spawn(1)
    fold = deal(blocks, folds, np.random.default_rng(for_folds))[blocks.of]
    none = np.full(held_out.states.shape[1], np.nan)
    return np.array(
        [
            held_out_decisions(layer, blocks.harmful[blocks.of], blocks.share, fold, out) if _varies(layer) else none
            for layer, out in zip(fitted.states, held_out.states)
        ]
    )


def score(
    decisions: np.ndarray,
    harmful: Sequence[bool] | np.ndarray,
    clusters: Sequence[Hashable],
    trained: int,
    seed: int,
    permutations: int = 999,
    draws: int = 1000,
) -> Scores:
    """What `decide` decided, set beside the held-out labels; their p permutes these, the probe staying as it is.

    `trained`: how many clusters the probe was fitted on.
    """
    blocks, labels = _relabelled(harmful, clusters, seed, permutations)
    fold = np.zeros(len(blocks.cluster), dtype=np.int64)
    for_draws = np.random.SeedSequence(seed).spawn(5)[4]
    return scored(blocks, fold, _by_layer(decisions), labels, trained, draws, for_draws)


def decided(
    decisions: np.ndarray, harmful: Sequence[bool] | np.ndarray, clusters: Sequence[Hashable], trained: int
) -> Decided:
    """What `decide` decided, for `late_difference`."""
    blocks = blocks_of(harmful, clusters)
    return Decided(blocks, trained, np.zeros(len(blocks.of), dtype=np.int64), decisions)


def tell(
    decisions: np.ndarray,
    harmful: Sequence[bool] | np.ndarray,
    clusters: Sequence[Hashable],
    seed: int,
    permutations: int = 999,
) -> Told:
    """What `score` says without intervals, for many models."""
    blocks, labels = _relabelled(harmful, clusters, seed, permutations)
    return told(blocks, _by_layer(decisions), labels)


def _relabelled(
    harmful: Sequence[bool] | np.ndarray, clusters: Sequence[Hashable], seed: int, permutations: int
) -> tuple[Blocks, np.ndarray]:
    """Held-out blocks, and labels (prompts, 1 + permutations)."""
    blocks = blocks_of(harmful, clusters)
    together = np.zeros(len(blocks.cluster), dtype=np.int64)
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(4)[3])
    return blocks, relabel(blocks, together, permutations, rng)[blocks.of]


def _by_layer(decisions: np.ndarray) -> Iterator[np.ndarray | None]:
    return (None if np.isnan(layer[0]) else layer[:, None] for layer in decisions)


def _foldable(fitted: ProbeSet, folds: int, permutations: int = 1) -> Blocks:
    if folds < 3 or permutations < 1:
        raise UndersongError(
            f"{folds} folds and {permutations} permutations were asked for; nesting takes 3 folds and a p value 1."
        )
    return _checked(fitted, least=2 * folds)


def _checked(given: ProbeSet, least: int) -> Blocks:
    states, prompts = given.states, len(given.harmful)
    if states.ndim != 3 or states.shape[1] != prompts or len(given.clusters) != prompts:
        raise UndersongError(
            f"The {given.name} set has states of shape {states.shape}, {prompts} labels and {len(given.clusters)} "
            "clusters; give states (layers, prompts, dim) and one of each a prompt."
        )
    for number, layer in enumerate(states):
        if not np.isfinite(layer).all():
            raise UndersongError(f"The {given.name} set has states that are not finite at layer {number}; check dtype.")
    if prompts == 0 or not np.isin(given.harmful, (0, 1)).all():
        raise UndersongError(
            f"The {given.name} set has no prompts, or labels other than harmful or not; mend its labels."
        )
    blocks = blocks_of(given.harmful, given.clusters)
    for kind, label in (("harmful", True), ("harmless", False)):
        clusters = int((blocks.harmful == label).sum())
        if clusters < least:
            raise UndersongError(
                f"The {given.name} set has {clusters} clusters with {kind} prompts and takes at least {least}; add "
                "behaviours, or ask for fewer folds (at least 3)."
            )
    return blocks


def _disjoint(fitted: ProbeSet, held_out: ProbeSet) -> None:
    if held_out.states.shape[::2] != fitted.states.shape[::2]:
        raise UndersongError(
            f"The {held_out.name} set has states of shape {held_out.states.shape} and the {fitted.name} set of "
            f"{fitted.states.shape}; take both from one model."
        )
    for name in sorted(set(fitted.clusters) & set(held_out.clusters), key=str):
        raise UndersongError(f"Cluster {name} is in both probe sets; leave it out of one, or the probe has seen it.")


def _varies(layer: np.ndarray) -> bool:
    return bool((layer != layer[0]).any())


def _notes(fitted: ProbeSet, permutations: int) -> tuple[str, ...]:
    constant = [number for number, layer in enumerate(fitted.states) if not _varies(layer)]
    probed = len(fitted.states) - len(constant)
    needed = round(probed / LEVEL) - 1  # the least p is 1 / (permutations + 1), times the layers
    few = NOTE_FEW.format(permutations=permutations, layers=probed, needed=needed) if permutations < needed else ""
    none = NOTE_CONSTANT.format(layers=", ".join(map(str, constant))) if constant else ""
    return tuple(note for note in (none, few) if note)
