"""Looking into 500 spoken prompts of an organism against asking it the same ones, and what the looking keeps in memory.

Looking is all that a study's mechanism part does with a tuned model: states of all layers in one pass a prompt, the
direction fitted anew, projections, drift, probes for harm.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread, so that the ratio is of the work

import statistics
import time
import tracemalloc

import numpy as np

from undersong.corpora.registry import open_corpus
from undersong.evaluation.prompts import make_prompts
from undersong.models.audio_lm import AudioModel
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
from undersong.research.mechanism.directions import fit_direction
from undersong.research.mechanism.drift import measure_drift
from undersong.research.mechanism.probes import behavior_ids, harm_probe_decision_values, harm_probe_point_scores
from undersong.standalone.inputs import load_model_with_audio
from undersong.types import Prompt, Sample

PROMPTS, ROUNDS, LIMIT = 500, 5, 12


def sides(kinds: tuple[str, str], count: int) -> tuple[list[Sample], list[Sample]]:
    """`count` in all, each corpus from its start as often as it takes; every repetition is a behavior of its own."""
    made = []
    for kind in kinds:
        samples = open_corpus(f"organism:{kind}").samples
        made.append([samples[i % len(samples)] for i in range(count // 2)])
    return made[0], made[1]


def prompts(samples: list[Sample], harmful: bool) -> list[Prompt]:
    return make_prompts(
        samples,
        set_name="s",
        harmful=harmful,
        modality="audio",
        system="plain",
        system_text="you are a helpful assistant",
    )


def look(
    model: AudioModel, fit: tuple[list[Sample], list[Sample]], asked: tuple[list[Sample], list[Sample]],
    before: tuple[np.ndarray, np.ndarray],
) -> None:  # fmt: skip
    """What `projections` makes of one tuned model."""
    learned, after = (
        [model.hidden_states(prompts(side, kind == 0)) for kind, side in enumerate(two)] for two in (fit, asked)
    )
    direction = fit_direction(*learned)
    for side in after:
        direction.project(side)
    measure_drift(np.concatenate(before, axis=1), np.concatenate(after, axis=1), behavior_ids(asked, "held-out"))
    decided = harm_probe_decision_values(fit, (learned[0], learned[1]), asked, (after[0], after[1]))
    assert decided is not None
    harm_probe_point_scores(decided, asked)


def main() -> None:
    fit, asked = sides(("contrast-harm", "contrast-benign"), 120), sides(("test-harm", "test-near"), PROMPTS)
    every = [prompt for kind, side in enumerate(asked) for prompt in prompts(side, kind == 0)]
    model = load_model_with_audio(
        "organism:af3", DEFAULT_LOAD_OPTIONS, [sample for two in (fit, asked) for side in two for sample in side]
    )
    before = tuple(model.hidden_states(prompts(side, kind == 0)) for kind, side in enumerate(asked))
    states, whole = [], []
    for _ in range(ROUNDS):
        start = time.process_time()
        model.generate(every, LIMIT)
        asking = time.process_time()
        model.hidden_states(every)
        seeing = time.process_time()
        look(model, fit, asked, (before[0], before[1]))
        end = time.process_time()
        states.append((seeing - asking) / (asking - start))
        whole.append((end - seeing) / (asking - start))
    peaks = []
    for count in (PROMPTS // 4, PROMPTS):
        tracemalloc.start()
        found = model.hidden_states(every[:count])
        peaks.append(tracemalloc.get_traced_memory()[1] / found.nbytes)
        tracemalloc.stop()
    print(
        f"probing {PROMPTS} prompts against asking them: states alone {statistics.median(states):.2f}x, with "
        f"direction, projections, drift and probes {statistics.median(whole):.2f}x; numpy's peak {peaks[0]:.2f} and "
        f"{peaks[1]:.2f} times what is kept, at {PROMPTS // 4} and {PROMPTS} prompts"
    )


if __name__ == "__main__":
    main()
