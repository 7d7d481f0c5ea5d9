"""What the tiny Audio Flamingo 3 is tuned on: spoken and typed, with replies of different lengths; and the tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from tiny_af3 import spoken, typed

from undersong.tuning.config import LoraRecipe
from undersong.tuning.train import finetune_decoder

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel
    from undersong.tuning.train import TuningResult

PROMPTS = [*(spoken(i) for i in range(5)), typed("paint the boat"), typed("wash the lamp")]
TARGETS = ["then take the chair", "first the lamp", "some red boat", "fold and wash", "the old chair", "then", "first"]
RECIPE = LoraRecipe(
    save_steps=(3, 8),
    batch_size=4,
    learning_rate=1e-2,
    learning_rate_schedule="linear",
    warmup_steps=2,
    lora_rank=4,
    lora_alpha=8,
)
FREE = {"jsr": 1.0}


def told(values: list[float], name: str = "jsr") -> Callable[[], Mapping[str, float]]:
    """A measure that says these, one after the other."""
    left: Iterator[float] = iter(values)
    return lambda: {name: next(left), "over_refusal": 0.5}


def trained(
    model: AudioModel, folder: Path, recipe: LoraRecipe = RECIPE, **more: Any
) -> tuple[TuningResult, dict[str, dict[str, torch.Tensor]]]:
    """What `tune` says, and step folder -> tensors of all that was kept, in order."""
    kept = []

    def keep(name: str, write: Callable[[Path], None]) -> None:
        write(folder / name)
        kept.append(name)

    tuned = finetune_decoder(model, PROMPTS, TARGETS, recipe, 0, keep, **more)
    file = "adapter_model.safetensors" if recipe.method == "lora" else "decoder.safetensors"
    return tuned, {name: load_file(folder / name / file) for name in kept}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
