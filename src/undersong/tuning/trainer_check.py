"""A check for `doctor`: the batch that the Trainer really takes from a recipe, and what its labels cover."""

from __future__ import annotations

import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.models.lora import new_lora
from undersong.tuning.config import LoraRecipe
from undersong.tuning.model_card import batch_text
from undersong.tuning.reproducibility import temporary_seed
from undersong.tuning.train import build_trainer
from undersong.types import Prompt, Sample

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

REPLY = "This is the reply."


def check_training_batch(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """Compare the first batch of a Trainer with the default recipe: its samples, and its labels (rule 6).

    Nothing is trained. The clips of `samples` must have been encoded.
    """
    recipe = LoraRecipe()
    prompts = [
        Prompt(sample, "doctor", False, modality, "plain") for sample in samples for modality in ("audio", "text")
    ]
    pairs = list(islice(cycle([(prompt, REPLY) for prompt in prompts]), recipe.batch_size))
    with (
        temporary_seed(0),
        tempfile.TemporaryDirectory() as folder,
        new_lora(model, recipe.lora_rank, recipe.lora_alpha, recipe.lora_dropout, recipe.targets) as learner,
    ):
        trainer = build_trainer(model, learner, pairs, recipe, 0, [], Path(folder), resumable=False)
        batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["labels"].tolist()
    expected = model.reply_ids(REPLY)
    is_right = len(labels) == recipe.device_batch_size and all(
        [token for token in row if token != -100] == expected == row[-len(expected) :] for row in labels
    )
    tokens = int(batch["attention_mask"].sum())
    return is_right, (
        f"{batch_text(recipe)}; the first pass has {len(labels)} samples of {tokens} tokens, and a loss on the last "
        f"{len(expected)} of each, the reply and its end"
    )
