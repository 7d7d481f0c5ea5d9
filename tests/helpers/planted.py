"""A decoder whose refusal is known: who writes it, where, along what, and which part of an adapter takes it back.

Prompts carry harm along `HARM`; layer `WRITES` turns it into the refusal direction; the head refuses where that is
positive.  The planted adapter sits in layer `LOSES` and turns the refusal round.  All else is noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from undersong.models.audio_lm import AudioModel
from undersong.models.lora import new_lora
from undersong.types import Prompt, Sample

DIM, LAYERS, WRITES, LOSES, REFUSES, COMPLIES = 24, 8, 3, 6, 0, 1  # WRITES, LOSES: 1 is the first layer


class Config(dict):
    hidden_size = DIM


class SelfAttention(nn.Module):
    """Writes nothing; with a bare parameter, so that LoRA does not target it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(DIM, DIM))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states @ self.weight


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = SelfAttention()
        self.write = nn.Linear(DIM, DIM, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states + self.self_attn(hidden_states)
        return hidden_states + self.write(hidden_states)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        self.config = Config()


class Whole(nn.Module):
    def __init__(self, seed: int, writes: float) -> None:
        super().__init__()
        self.model, self.head, self.config = Decoder(), nn.Linear(DIM, 20), Config()
        generator = torch.Generator().manual_seed(seed)
        axes = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator))[0]
        self.harm, self.refusal = axes[0], axes[1]
        with torch.no_grad():
            for block in self.model.layers:
                block.write.weight.copy_(0.02 * torch.randn(DIM, DIM, generator=generator))
            self.model.layers[WRITES - 1].write.weight += writes * torch.outer(self.refusal, self.harm)
            self.head.weight.zero_()
            self.head.bias.fill_(-8.0)
            self.head.weight[REFUSES], self.head.bias[REFUSES] = 2 * self.refusal, -4.0
            self.head.bias[COMPLIES] = 0.0

    def get_decoder(self) -> Decoder:
        return self.model

    def forward(self, inputs_embeds: torch.Tensor, **_: Any) -> SimpleNamespace:
        for block in self.model.layers:
            inputs_embeds = block(hidden_states=inputs_embeds)
        return SimpleNamespace(logits=self.head(inputs_embeds))


class Planted(AudioModel):
    """The `AudioModel` of it; `writes`: how strongly harm becomes refusal (0: nothing is planted)."""

    def __init__(self, seed: int = 0, writes: float = 4.0, noise: float = 0.15) -> None:
        self.model, self.name, self.noise = Whole(seed, writes).eval(), "planted", noise
        self.batch_size = None
        self.whole = self.model

    @property
    def frozen_modules(self) -> dict[str, nn.Module]:
        return {}

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        return [0, 1]

    def batch(self, prompts: Sequence[Prompt], replies: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        rows = []
        for prompt in prompts:
            rng = np.random.default_rng(list(prompt.sample.id.encode()))
            noise = torch.from_numpy(rng.normal(0, self.noise, (2, DIM))).float()
            rows.append(noise + (self.whole.harm if prompt.harmful else -self.whole.harm))
        return {"inputs_embeds": torch.stack(rows)}

    @contextmanager
    def wearing(self, undoes: float = 1.6, everywhere: float = 0.0, seed: int = 0) -> Iterator[Planted]:
        """LoRA on every layer: in LOSES it takes `undoes` times the refusal away; elsewhere noise."""
        with new_lora(self, 2, 2, 0.0, None) as worn:
            generator = torch.Generator().manual_seed(seed)
            for index, block in enumerate(self.base.model.layers):
                a, b = (getattr(block.write, f"lora_{side}")["default"].weight for side in "AB")
                with torch.no_grad():
                    a.copy_(torch.randn(a.shape, generator=generator) * everywhere)
                    b.copy_(torch.randn(b.shape, generator=generator) * everywhere)
                    if index == LOSES - 1 and undoes:
                        a[0], b[:, 0] = self.whole.refusal, -undoes * self.whole.refusal
            worn.eval()
            yield self


def prompts(harmful: bool, count: int, split: str) -> list[Prompt]:
    """Two of each behavior."""
    name = "harm" if harmful else "calm"
    made = [Sample(f"{split}-{name}-{i}", text="x", group=f"{split}-{name}-{i // 2}") for i in range(count)]
    return [Prompt(sample, name, harmful, "text", "plain") for sample in made]
