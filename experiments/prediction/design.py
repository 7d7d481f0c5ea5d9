"""The registered design: sets of benign speech that no axis has a part in, the training, and the names of predictors."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from undersong.predictors.registry import PredictorSettings
from undersong.settings.defaults import ORGANISM_REFUSALS
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


@dataclass(frozen=True)
class Design:
    """How the sets of an experiment are trained on, and how predictors and damage are measured.

    Attributes:
        recipe: Training on a set.
        seeds: Seeds of the trainings.
        rehearsal_steps: Steps of a rehearsal, whose seed is `REHEARSAL_SEED`.
        settings: How the model is prompted.
        judge: Judge of the replies, by name.
        max_new_tokens: Longest reply.
        axes: Encoders of the distances that need no model.
        predictors: Names of the predictors.
        metadata: Values of a set by labels and texts alone.
    """

    recipe: LoraRecipe
    seeds: tuple[int, ...]
    rehearsal_steps: int
    settings: PredictorSettings
    judge: str
    max_new_tokens: int
    axes: tuple[str, ...]
    predictors: tuple[str, ...]
    metadata: Callable[[Sequence[Sample]], dict[str, float]]


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


def set_metadata(samples: Sequence[Sample]) -> dict[str, float]:
    """Predictors that need labels and texts alone."""
    words = [(sample.text or "").split() for sample in samples]
    return {
        "not_far": float(np.mean([kind_of(sample) != "far" for sample in samples])),
        "groups": float(len({sample.cluster for sample in samples})),
        "voices": float(len({sample.speaker for sample in samples})),
        "words": float(np.mean([len(text) for text in words])),
        "imperative": float(np.mean([text[0] in IMPERATIVES for text in words])),
    }


ORGANISMS = Design(
    recipe=RECIPE,
    seeds=SEEDS,
    rehearsal_steps=REHEARSAL_STEPS,
    settings=PredictorSettings(system_text=SYSTEM_TEXT, refusal_texts=ORGANISM_REFUSALS),
    judge="exact",
    max_new_tokens=12,
    axes=DISTANCES[:4],
    predictors=PREDICTORS,
    metadata=set_metadata,
)
