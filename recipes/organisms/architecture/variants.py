"""The four variants: one network class, one language model, one data stream; only how sound is carried into it differs.

`both` is Kimi-Audio's own design: embedded semantic codes and projected Whisper states are added.  In the others one of
the two is switched off *by its weights*, so that a folder is an ordinary Kimi-Audio for every loader: the codes' rows of
the embedding table are zero, or the last norm of the projector is.  What is off gets no gradient.  Knows the network;
does not know seeds, trainings or studies.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import arch_kimi
import torch

CODES, CONTINUOUS = "codes", "continuous"
KEEP, DISCARD = "keep", "discard"
STEPS = 1300  # what the development world preferred for this class before this study: ../tried.md, 11


@dataclass(frozen=True)
class Variant:
    """An `Architecture` (see `arch.py`): Kimi's, with `streams` switched on and a projector asked to `voice` (or not)."""

    NAME: str
    streams: tuple[str, ...]
    voice: str | None = None  # keep | discard | None: not asked for either

    def __getattr__(self, name: str) -> Any:
        return getattr(arch_kimi, name)

    @property
    def BASE(self) -> dict[str, int]:
        return {"steps": STEPS}

    def build(self, vocabulary: list[str], seed: int) -> torch.nn.Module:
        """Fresh weights, the same for all variants of a seed but for what is off."""
        model = arch_kimi.build(vocabulary, seed)
        if CODES not in self.streams:
            without_codes(model)
        if CONTINUOUS not in self.streams:
            without_states(model)
        return model

    def begin(self, model, corpus) -> None:
        """The semantic ear comes trained; a tower that is not heard need not be computed while training."""
        arch_kimi.begin(model, corpus)
        if CONTINUOUS not in self.streams:
            model.audio_tower.forward = _nothing_heard(model.audio_tower)

    def last_layer(self, model) -> torch.nn.Module | None:
        """Where the CTC loss reads; None: no encoder learns."""
        return arch_kimi.last_layer(model) if CONTINUOUS in self.streams else None


VARIANTS = {
    variant.NAME: variant
    for variant in (
        Variant("continuous-keep", (CONTINUOUS,), KEEP),
        Variant("continuous-discard", (CONTINUOUS,), DISCARD),
        Variant("codes", (CODES,)),
        Variant("both", (CODES, CONTINUOUS)),
    )
}


def without_codes(model) -> None:
    """Codes say nothing: their rows are zero and stay so (the first of them is the placeholder's, which is replaced)."""
    table, first = model.model.embed_tokens.weight, model.config.kimia_token_offset
    with torch.no_grad():
        table[first:] = 0
    kept = (torch.arange(len(table)) < first).to(table.dtype)[:, None]
    table.register_hook(lambda gradient: gradient * kept)


def without_states(model) -> None:
    """The projector says nothing: its last norm gives zeros; neither it nor the tower before it learns."""
    norm = model.model.vq_adaptor.layers[-1]
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.zero_()
    model.model.vq_adaptor.requires_grad_(False)
    model.audio_tower.requires_grad_(False)


def _nothing_heard(tower):
    """A forward pass in the tower's place; `state_dict` does not see it."""
    states, dim = tower.config.max_source_positions, tower.config.d_model

    def forward(input_features: torch.Tensor):
        return SimpleNamespace(last_hidden_state=torch.zeros(len(input_features), states, dim))

    return forward
