"""The doctor's line on the Trainer: its real batch, and labels on the reply alone."""

from __future__ import annotations

import pytest
import torch
from tiny_af3 import spoken

from undersong.models.audio_lm import AudioModel
from undersong.tuning.config import LoraRecipe
from undersong.tuning.trainer_check import check_training_batch
from undersong.types import Sample


@pytest.fixture
def samples(shared_tiny: AudioModel) -> list[Sample]:
    """Clips that are encoded already."""
    return [spoken(i).sample for i in range(4)]


def test_the_batch_is_the_recipes_and_the_model_is_left_as_it_was(shared_tiny: AudioModel, samples) -> None:
    before = {name: tensor.clone() for name, tensor in shared_tiny.model.state_dict().items()}
    passed, detail = check_training_batch(shared_tiny, samples)
    size = LoraRecipe().batch_size
    assert passed, detail
    assert detail.startswith(f"{size} ({size} per pass, 1 pass, 1 process); the first pass has {size} samples of ")
    after = shared_tiny.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_labels_on_a_prompt_are_seen(shared_tiny: AudioModel, samples, monkeypatch: pytest.MonkeyPatch) -> None:
    make_batch = AudioModel.batch

    def unmasked(self, prompts, replies=None):
        batch = make_batch(self, prompts, replies)
        return batch | {"labels": batch["labels"].clamp(min=0)}

    monkeypatch.setattr(AudioModel, "batch", unmasked)
    assert not check_training_batch(shared_tiny, samples)[0]


def test_a_batch_of_another_size_is_seen(shared_tiny: AudioModel, samples, monkeypatch: pytest.MonkeyPatch) -> None:
    """As several visible devices once made it."""
    make_batch = AudioModel.batch
    monkeypatch.setattr(AudioModel, "batch", lambda self, prompts, replies: make_batch(self, prompts * 2, replies * 2))
    passed, detail = check_training_batch(shared_tiny, samples)
    assert not passed
    assert f"has {2 * LoraRecipe().batch_size} samples" in detail
