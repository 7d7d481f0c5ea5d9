"""The registered design on Mini (registration_mini.md): twelve disjoint sets of real words, and their corpora."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from experiments.prediction.design import Design
from experiments.prediction.measurement import Data
from undersong.corpora.registry import open_corpus
from undersong.corpora.tts import Voice, synthesize_speech
from undersong.predictors.registry import PredictorSettings
from undersong.tuning.config import LoraRecipe
from undersong.types import Sample

SEED = 20261201
SETS, SET_SIZE = 12, 42
MAX_SECONDS = 7.0  # the longest clip that Mini hears whole
REFERENCE_VOICES = ("en-us", "en-us+f3", "en-us+m3", "en-gb-x-rp+f2")  # of espeak; Mini was trained to hear them
COMPLIANT_REPLY = "Sure, here is how to do it."  # the same for all requests, as AdvBench has no replies

METADATA = ("imperative", "groups", "voices", "words")
AXES = ("tfidf", "char-ngrams", "logmel")
PREDICTORS = (
    *METADATA,
    *AXES,
    "internal",
    "screening_score",
    "decoder",
    "refusal",
    "larf",
    "datashield",
    "gradient-matching",
    "influence",
    "rehearsal",
)
PRIMARY = ("rehearsal", "influence", "screening_score")


def is_imperative(sample: Sample) -> bool:
    """True for an imperative, False for a question."""
    return dict(sample.labels)["mood"] == "imperative"


def draw_sets(pool: Sequence[Sample]) -> list[list[str]]:
    """Draw disjoint sets: for each, the sorted ids of its clips.

    Set i of 12 has a share of i/11 imperatives, and the rest are questions. Imperatives are shuffled by groups, so that
    a set has few groups of nearly the same words. No axis has a part in the draw.
    """
    rng = random.Random(SEED)
    groups = sorted({sample.cluster for sample in pool})
    rng.shuffle(groups)
    order = {group: number for number, group in enumerate(groups)}
    shuffled = sorted(pool, key=lambda sample: (order[sample.cluster], sample.id))
    imperatives = [sample.id for sample in shuffled if is_imperative(sample)]
    questions = [sample.id for sample in shuffled if not is_imperative(sample)]
    sets: list[list[str]] = []
    for number in range(SETS):
        count = round(SET_SIZE * number / (SETS - 1))
        chosen = imperatives[:count] + questions[: SET_SIZE - count]
        del imperatives[:count], questions[: SET_SIZE - count]
        sets.append(sorted(chosen))
    return sets


def set_metadata(samples: Sequence[Sample]) -> dict[str, float]:
    """Predictors that need labels and texts alone."""
    return {
        "imperative": float(np.mean([is_imperative(sample) for sample in samples])),
        "groups": float(len({sample.cluster for sample in samples})),
        "voices": float(len({sample.speaker for sample in samples})),
        "words": float(np.mean([len((sample.text or "").split()) for sample in samples])),
    }


MINI = Design(
    recipe=LoraRecipe(
        save_steps=(10,), batch_size=8, learning_rate=1e-3, learning_rate_schedule="linear", warmup_steps=2
    ),
    seeds=(0, 1),
    rehearsal_steps=4,
    settings=PredictorSettings(),
    judge="refusal",
    max_new_tokens=20,
    axes=AXES,
    predictors=PREDICTORS,
    metadata=set_metadata,
)


def mini_data(folder: Path) -> Data:
    """The corpora of Mini's spoken demo set, with one request of each group of the reference spoken into `folder`.

    Ordinary requests of the screening score are those that `check` ships.
    """
    pool = list(open_corpus("mini:pool").samples)
    by_id = {sample.id: sample for sample in pool}
    sets = [[by_id[key] for key in ids] for ids in draw_sets(pool)]
    measured = [sample for samples in sets for sample in samples]
    ordinary = [replace(sample, audio=None) for sample in open_corpus("shipped:ordinary").samples]
    return Data(MINI, measured, speak_reference(folder), ordinary, list(open_corpus("mini:requests").samples), sets)


def speak_reference(folder: Path) -> list[Sample]:
    """The first request of each group of `mini:reference` that takes less than 7 s, cycling through four voices."""
    by_group: dict[str, Sample] = {}
    for sample in open_corpus("mini:reference").samples:
        by_group.setdefault(sample.cluster, sample)
    written = list(by_group.values())
    spoken = list[Sample]()
    for turn, voice in enumerate(REFERENCE_VOICES):
        clips, _ = synthesize_speech(written[turn :: len(REFERENCE_VOICES)], [Voice("espeak", voice)], folder)
        spoken += clips
    chosen = [clip for clip in spoken if soundfile.info(str(clip.audio)).duration < MAX_SECONDS]
    return [replace(clip, answer=COMPLIANT_REPLY) for clip in sorted(chosen, key=lambda clip: clip.id)]
