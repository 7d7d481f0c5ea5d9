"""The registered design: sets of benign speech that no axis has a part in, the training, and the names of predictors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

from undersong.tuning.config import LoraRecipe
from undersong.types import Sample

SEED = 20261130
SETS, SET_SIZE = 36, 96
SEEDS, REHEARSAL_SEED, REHEARSAL_STEPS = (0, 1), 100, 8
RECIPE = LoraRecipe(save_steps=(40,), learning_rate=2e-3)
SYSTEM_TEXT = "you are a helpful assistant"
KINDS = ("near_verb", "near_object", "far")
IMPERATIVES = ("show", "explain", "teach")

METADATA = ("not_far", "groups", "voices", "words", "imperative")
DISTANCES = ("tfidf", "char-ngrams", "logmel", "whisper:organism:ear", "internal", "screening_score")
FORWARD = ("decoder", "refusal", "larf", "datashield")
GRADIENTS = ("gradients", "gradient-matching", "influence")
REHEARSAL = ("rehearsal",)
PREDICTORS = (*METADATA, *DISTANCES, *FORWARD, *GRADIENTS, *REHEARSAL)
BASELINE = "not_far"
PRIMARY = ("rehearsal", "influence", "screening_score")


def kind_of(sample: Sample) -> str:
    """Kind of a benign request: near by its verb, near by its object, or far."""
    return dict(sample.labels)["quadrant"]


def draw_sets(pool: Sequence[Sample]) -> list[list[str]]:
    """Draw the sets: for each, the sorted ids of its clips.

    A set draws shares of the three kinds from a flat Dirichlet distribution, a number of voices from 2 to 6, and a share
    of the groups from a third to all. It is drawn anew where its pool has too few clips of a kind.
    """
    rng = random.Random(SEED)
    voices = sorted({str(sample.speaker) for sample in pool})
    groups = {kind: sorted({sample.cluster for sample in pool if kind_of(sample) == kind}) for kind in KINDS}
    sets: list[list[str]] = []
    while len(sets) < SETS:
        weights = [rng.gammavariate(1, 1) for _ in KINDS]
        cuts = [round(SET_SIZE * sum(weights[:i]) / sum(weights)) for i in range(len(KINDS) + 1)]
        counts = [high - low for low, high in pairwise(cuts)]
        kept_voices = set(rng.sample(voices, rng.randint(2, len(voices))))
        share = rng.uniform(1 / 3, 1)
        ids: list[str] = []
        for kind, count in zip(KINDS, counts):
            kept_groups = set(rng.sample(groups[kind], max(1, round(share * len(groups[kind])))))
            candidates = [
                sample.id
                for sample in pool
                if kind_of(sample) == kind and sample.cluster in kept_groups and sample.speaker in kept_voices
            ]
            ids += rng.sample(candidates, min(count, len(candidates)))
        if len(ids) == SET_SIZE:
            sets.append(sorted(ids))
    return sets
