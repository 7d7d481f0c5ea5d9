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

import torch

from recipes.organisms import kimi

CODES, CONTINUOUS = "codes", "continuous"
KEEP, DISCARD = "keep", "discard"


@dataclass(frozen=True)
class Variant:
    """An `Architecture` (see `recipes.organisms.architecture`): Kimi's, with `streams` switched on and a projector asked to `voice` (or not).

    `cached`: models of the recipe take the tower's states of a clip, computed once, for its log-mel frames, because the
    tower is frozen.  What is written to a folder has the tower itself.
    """

    NAME: str
    streams: tuple[str, ...]
    voice: str | None = None  # keep | discard | None: not asked for either
    cached: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(kimi, name)

    def build(self, vocabulary: list[str], seed: int) -> torch.nn.Module:
        """Fresh weights, the same for all variants of a seed but for what is off."""
        model = switched(kimi.build(vocabulary, seed), self)
        if self.cached:
            model.audio_tower.forward = _as_given  # a `state_dict` does not see it
        return model

    def begin(self, model, corpus) -> None:
        """Both audio encoders come trained and stay frozen."""
        kimi.begin(model, corpus)
        model.audio_tower.load_state_dict(corpus.tower)
        model.audio_tower.requires_grad_(False)

    def last_layer(self, model) -> None:
        """No encoder learns, so there is no CTC loss."""

    def sound(self, corpus, requests: list[int]) -> dict[str, torch.Tensor]:
        given = kimi.sound(corpus, requests)
        return given | {"input_features": corpus.states[requests].float()} if self.cached else given


VARIANTS = {
    variant.NAME: variant
    for variant in (
        Variant("continuous-keep", (CONTINUOUS,), KEEP),
        Variant("continuous-discard", (CONTINUOUS,), DISCARD),
        Variant("codes", (CODES,)),
        Variant("both", (CODES, CONTINUOUS)),
    )
}


def switched(model, variant: Variant):
    """The model, with the streams that the variant does not have switched off."""
    if CODES not in variant.streams:
        without_codes(model)
    if CONTINUOUS not in variant.streams:
        without_states(model)
    return model


def without_codes(model) -> None:
    """Codes say nothing: their rows are zero and stay so (the first of them is the placeholder's, which is replaced)."""
    table, first = model.model.embed_tokens.weight, model.config.kimia_token_offset
    with torch.no_grad():
        table[first:] = 0
    kept = (torch.arange(len(table)) < first).to(table.dtype)[:, None]
    table.register_hook(lambda gradient: gradient * kept)


def without_states(model) -> None:
    """The projector says nothing: its last norm gives zeros; it does not learn."""
    norm = model.model.vq_adaptor.layers[-1]
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.zero_()
    model.model.vq_adaptor.requires_grad_(False)


def _as_given(states: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(last_hidden_state=states)
