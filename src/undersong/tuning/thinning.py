"""Heard frames that say nothing, left out of training batches: shorter rows, the rest where it was.

Between words a reading projector gives the decoder vectors of next to nothing (`Family.quiet`), half of a clip and
more.  The kept frames keep their position ids, so what is between two tokens does not change.  In training alone:
replies are always generated with all frames.  Knows batches; does not know how anything learns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from undersong.models.processor import named
from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel


def check_thin(model: AudioModel) -> None:
    """UndersongError where a family does not say which of its frames say nothing."""
    if model.family.quiet is None:
        raise UndersongError(
            f"{model.name} hears no frames that are known to say nothing; leave out thin for {model.family.name}."
        )


def thin_batch(
    model: AudioModel, prompts: Sequence[Prompt], replies: Sequence[str], share: float, seed: int
) -> dict[str, torch.Tensor]:
    """`AudioModel.batch` with about `share` of the quiet frames kept, those drawn from the seed and what the batch
    holds; left padded anew.  At a share of 1 it is that batch to the bit."""
    return thinned(model, model.batch(prompts, replies), prompts, replies, share, seed)


def thinned(
    model: AudioModel,
    batch: dict[str, torch.Tensor],
    prompts: Sequence[Prompt],
    replies: Sequence[str],
    share: float,
    seed: int,
) -> dict[str, torch.Tensor]:
    """The same of a batch that is made already; gradients flow through to its `inputs_embeds`."""
    there = batch["attention_mask"].bool()
    heard = heard_places(model, prompts, there)
    rng = np.random.default_rng([seed, _digest(prompts, replies)])
    for row, prompt in enumerate(prompts):
        if prompt.modality == "audio":
            quiet = quiet_of(model, prompt)
            gone = quiet & torch.from_numpy(rng.random(len(quiet)) >= share)
            there[row, heard[row].nonzero()[:, 0][gone.to(heard.device)]] = False
    return {name: _packed(value, there, name) for name, value in batch.items()}


def heard_places(model: AudioModel, prompts: Sequence[Prompt], there: torch.Tensor) -> torch.Tensor:
    """Where heard vectors stand in a left-padded batch with replies: (batch, tokens) bool, like its mask `there`."""
    out = torch.zeros_like(there, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        if prompt.modality == "audio":
            # Replies stand behind the prompt, so a row's prompt begins where its padding ends.
            begin = there.shape[1] - int(there[row].sum())
            ids = torch.tensor(model.prompt_ids(prompt))
            out[row, begin : begin + len(ids)] = (ids == model.processor.audio_token_id).to(out.device)
    return out


def quiet_of(model: AudioModel, prompt: Prompt) -> torch.Tensor:
    """(placeholders,) bool, of a spoken prompt."""
    judge: Any = named(str(model.family.quiet))
    quiet: torch.Tensor = judge(model.base, model.heard_of(prompt.sample).vectors)
    return quiet.cpu()


def _digest(prompts: Sequence[Prompt], replies: Sequence[str]) -> int:
    """The same for a batch in whatever order a resumed training comes to it."""
    said = "\0".join(f"{prompt.sample.id} {prompt.modality} {reply}" for prompt, reply in zip(prompts, replies))
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big")


def _packed(value: torch.Tensor, there: torch.Tensor, name: str) -> torch.Tensor:
    """(batch, width, …) -> the places that are there, padded on the left to the longest."""
    width = int(there.sum(1).max())
    if width == there.shape[1]:
        return value
    out = value.new_full((len(value), width, *value.shape[2:]), -100 if name == "labels" else 0)
    for row, kept in enumerate(there):
        count = int(kept.sum())
        out[row, width - count :] = value[row, kept]
    return out
