"""One process trains on one device, however many it sees: no replicas, no larger batch, no move to the first GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny_tuning import PROMPTS, TARGETS
from transformers import TrainingArguments

from undersong.models.audio_lm import AudioModel
from undersong.tuning.config import LoraRecipe
from undersong.tuning.single_device import SingleDeviceArguments
from undersong.tuning.train import finetune_decoder
from undersong.types import Prompt, UndersongError

RECIPE = LoraRecipe(
    save_steps=(3,),
    batch_size=4,
    micro_batch_size=1,
    learning_rate=1e-2,
    warmup_steps=0,
    lora_rank=4,
    lora_alpha=8,
)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers sees on a node with four GPUs."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda _: 4))


@pytest.fixture
def passes(shared_tiny: AudioModel, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Sample ids of each training pass."""
    seen: list[list[str]] = []
    make_batch = shared_tiny.batch

    def batch(prompts: Sequence[Prompt], replies: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        if replies is not None:
            seen.append([prompt.sample.id for prompt in prompts])
        return make_batch(prompts, replies)

    monkeypatch.setattr(shared_tiny, "batch", batch)
    return seen


def train(model: AudioModel, folder: Path) -> str:
    """Train by the recipe -> the model card."""
    finetune_decoder(model, PROMPTS, TARGETS, RECIPE, 0, lambda _, write: write(folder))
    return (folder / "README.md").read_text()


@pytest.mark.usefixtures("four_gpus")
def test_several_gpus_in_sight_do_not_multiply_the_batch(shared_tiny, passes, tmp_path) -> None:
    card = train(shared_tiny, tmp_path)
    assert [len(ids) for ids in passes] == [1] * 12
    assert "| samples of a step | 4 (1 per pass, 4 passes, 1 process) |" in card


def test_another_batch_than_the_recipes_is_refused(shared_tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(SingleDeviceArguments, "n_gpu", property(lambda _: 4))
    with pytest.raises(UndersongError, match="would take 4 samples at a time, not 1; set CUDA_VISIBLE_DEVICES"):
        train(shared_tiny, tmp_path)


def test_training_stays_on_the_models_gpu(tmp_path, monkeypatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    arguments = SingleDeviceArguments(output_dir=str(tmp_path), use_cpu=True)
    arguments.stay_on(torch.device("cuda:1"))
    assert arguments.device == torch.device("cuda:1")
    assert current == [torch.device("cuda:1")]


def test_a_process_of_several_keeps_its_own_device(tmp_path, monkeypatch) -> None:
    arguments = SingleDeviceArguments(output_dir=str(tmp_path), use_cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments.stay_on(torch.device("cuda:1"))
    assert arguments.device == torch.device("cpu")
