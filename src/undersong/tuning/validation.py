"""Split into training and validation samples by group, and a callback that logs the validation loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from undersong.models.audio_lm import AudioModel
from undersong.types import Prompt, Sample, UndersongError

SPLIT_SEED = 0x5EED  # a separate random stream, so that the training seed does not change the split


def train_validation_split(samples: Sequence[Sample], share: float) -> tuple[list[int], list[int]]:
    """Indices of training and of validation samples: whole groups, about `share` of the samples.

    Groups are drawn by their names alone, so every seed and modality of an arm has the same split. The head of a file
    would not do, because it may be one accent or the closest samples; nor would single samples, whose group would be on
    both sides. Raises UndersongError if a side would be empty.
    """
    names = sorted({sample.cluster for sample in samples})
    order = np.random.default_rng(SPLIT_SEED).permutation(len(names))
    sizes = dict.fromkeys(names, 0)
    for sample in samples:
        sizes[sample.cluster] += 1
    held_out: set[str] = set()
    count = 0
    for index in order:
        if count >= share * len(samples):
            break
        held_out.add(names[index])
        count += sizes[names[index]]
    if share > 0 and (not held_out or len(held_out) == len(names)):
        raise UndersongError(
            f"{len(names)} groups of {len(samples)} samples cannot be split with {share:g} held out; give more groups."
        )
    indices = range(len(samples))
    is_held_out = [samples[i].cluster in held_out for i in indices]
    return [i for i in indices if not is_held_out[i]], [i for i in indices if is_held_out[i]]


def mean_loss(model: AudioModel, prompts: Sequence[Prompt], targets: Sequence[str], batch_size: int) -> float:
    """Mean loss per token of the replies, as in training but without dropout.

    Args:
        model: The model.
        prompts: The prompts.
        targets: Their replies.
        batch_size: Prompts per forward pass.
    """
    was_training = model.model.training
    model.model.eval()
    total_loss, tokens = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(prompts), batch_size):
            batch = model.batch(prompts[start : start + batch_size], targets[start : start + batch_size])
            count = int((batch["labels"] != -100).sum())
            total_loss += float(model.model(**batch, use_cache=False).loss) * count
            tokens += count
    model.model.train(was_training)
    return total_loss / tokens


class ValidationLossCallback(TrainerCallback):
    """Adds the validation loss to the training log at the saved steps."""

    def __init__(
        self, model: AudioModel, pairs: Sequence[tuple[Prompt, str]], steps: Sequence[int], batch_size: int
    ) -> None:
        self.model, self.steps, self.batch_size = model, frozenset(steps), batch_size
        self.prompts, self.targets = [prompt for prompt, _ in pairs], [target for _, target in pairs]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.prompts and state.global_step in self.steps:
            loss = mean_loss(self.model, self.prompts, self.targets, self.batch_size)
            state.log_history.append({"step": state.global_step, "validation_loss": loss})
