"""A validation split by group, and the loss on it at every kept step.  Knows samples' clusters; chooses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from undersong.models.adapter import AudioModel
from undersong.types import Prompt, Sample, UndersongError

SPLIT = 0x5EED  # a stream of its own: another training seed must not be another split


def split(samples: Sequence[Sample], share: float) -> tuple[list[int], list[int]]:
    """Places of what is trained on, and of what is held out: whole groups, about `share` of the samples, drawn by the
    names of the groups alone, so that every seed and modality of an arm has the same.

    Not the head of a file, which may be one accent or the closest samples; and not samples, whose group would be on
    both sides.  UndersongError where a side would be empty.
    """
    names = sorted({sample.cluster for sample in samples})
    order = np.random.default_rng(SPLIT).permutation(len(names))
    sizes = dict.fromkeys(names, 0)
    for sample in samples:
        sizes[sample.cluster] += 1
    held: set[str] = set()
    count = 0
    for place in order:
        if count >= share * len(samples):
            break
        held.add(names[place])
        count += sizes[names[place]]
    if share > 0 and (not held or len(held) == len(names)):
        raise UndersongError(
            f"{len(names)} groups of {len(samples)} samples cannot be split with {share:g} held out; give more groups."
        )
    places = range(len(samples))
    inside = [samples[i].cluster in held for i in places]
    return [i for i in places if not inside[i]], [i for i in places if inside[i]]


def mean_loss(model: AudioModel, prompts: Sequence[Prompt], targets: Sequence[str], size: int) -> float:
    """Mean cost of a token of the replies, as training has it, without dropout and without a step."""
    was = model.model.training
    model.model.eval()
    cost, tokens = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(prompts), size):
            batch = model.batch(prompts[start : start + size], targets[start : start + size])
            count = int((batch["labels"] != -100).sum())
            cost += float(model.model(**batch, use_cache=False).loss) * count
            tokens += count
    model.model.train(was)
    return cost / tokens


class HeldOut(TrainerCallback):
    """Writes the loss on what is held out into the training's log, at the kept steps."""

    def __init__(self, model: AudioModel, pairs: Sequence[tuple[Prompt, str]], steps: Sequence[int], size: int) -> None:
        self.model, self.steps, self.size = model, frozenset(steps), size
        self.prompts, self.targets = [prompt for prompt, _ in pairs], [target for _, target in pairs]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.prompts and state.global_step in self.steps:
            found = mean_loss(self.model, self.prompts, self.targets, self.size)
            state.log_history.append({"step": state.global_step, "validation_loss": found})
