"""Harm as one model's own late states tell it: probes that learn from contrast sets and decide on held-out prompts.

Knows states and samples; does not know who refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from undersong.mechanism.probe_scores import Decided, Scores, Told
from undersong.mechanism.probes import ProbeSet, decide, decided, probe, score, tell
from undersong.types import Sample

FOLDS = 5  # of the contrast sets, to choose a probe's penalty in; fewer where there are few behaviours
LEAST = 6  # behaviours of a kind: three folds with two of each kind in one
SEED = 0
MARGIN = 0.1  # loss of balanced accuracy that would matter

Sides = tuple[Sequence[Sample], Sequence[Sample]]  # harmful and harmless prompts, in this order everywhere
States = tuple[np.ndarray, np.ndarray]  # theirs (layers + 1, prompts, dim)


def behaviours(sides: Sides, name: str) -> list[str]:
    """The independent unit of each prompt: its group where it has one, or itself, by a name that no other set has."""
    return [
        f"group {sample.group}" if sample.group is not None else f"{name} {kind} {sample.id}"
        for kind, side in zip(("harmful", "harmless"), sides)
        for sample in side
    ]


def labels(sides: Sides) -> list[bool]:
    """Is it harmful?"""
    return [kind == 0 for kind, side in enumerate(sides) for _ in side]


def recognise(contrast: Sides, states: States, held_out: Sides, held_out_states: States) -> np.ndarray | None:
    """(layers + 1, held-out prompts) decision values, above 0: harmful; None with too few behaviours to learn from.

    NaN at a layer that is constant over the contrast sets.  The outer split is the held-out set itself; the penalty is
    chosen by cross-validation over behaviours of the contrast sets.
    """
    fitted = _probe_set(contrast, states, "contrast")
    if _fewest(fitted) < LEAST:
        return None
    return decide(fitted, _probe_set(held_out, held_out_states, "held-out"), SEED, _folds(fitted))


def nested_scores(contrast: Sides, states: States, permutations: int) -> Scores:
    """Of nested cross-validation in the contrast sets alone, every permutation of labels going through all of it."""
    fitted = _probe_set(contrast, states, "contrast")
    return probe(fitted, SEED, folds=_folds(fitted), permutations=permutations).folds


def _probe_set(sides: Sides, states: States, name: str) -> ProbeSet:
    return ProbeSet(np.concatenate(states, axis=1), labels(sides), behaviours(sides, name), name)


def _fewest(fitted: ProbeSet) -> int:
    """Behaviours of the kind that has fewer."""
    counts = Counter(label for _, label in set(zip(fitted.clusters, fitted.harmful)))
    return min(counts[True], counts[False])


def _folds(fitted: ProbeSet) -> int:
    return min(FOLDS, _fewest(fitted) // 2)


def recognition_scores(decisions: np.ndarray, contrast: Sides, held_out: Sides) -> Scores:
    """What was decided, set beside the truth; `trained` of them is how many behaviours there were to learn from."""
    trained = len(set(behaviours(contrast, "contrast")))
    return score(decisions, labels(held_out), behaviours(held_out, "held-out"), trained, SEED)


def recognition_decided(decisions: np.ndarray, contrast: Sides, held_out: Sides) -> Decided:
    """The same without any score, for the change between two models."""
    trained = len(set(behaviours(contrast, "contrast")))
    return decided(decisions, labels(held_out), behaviours(held_out, "held-out"), trained)


def recognition_told(decisions: np.ndarray, held_out: Sides, permutations: int = 199) -> Told:
    """The same without intervals, for the many runs of a study."""
    return tell(decisions, labels(held_out), behaviours(held_out, "held-out"), SEED, permutations)
