"""Pruning of silent audio frames from training batches; position ids do not change."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from undersong.models.families import import_object
from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel


def check_prunable(model: AudioModel) -> None:
    """Raise UndersongError for a family that does not mark silent frames."""
    if model.family.silence_detector is None:
        raise UndersongError(
            f"{model.name} cannot tell which audio frames are silent, so it is trained on all of them; leave out "
            "--silent-frame-share, or tuning.silent_frame_share of a study."
        )


def prune_batch(
    model: AudioModel, prompts: Sequence[Prompt], replies: Sequence[str], share: float, seed: int
) -> dict[str, torch.Tensor]:
    """`AudioModel.batch` with about `share` of the silent frames kept, left-padded again.

    Args:
        model: The model.
        prompts: The prompts.
        replies: Their replies.
        share: Share of silent frames to keep. At 1 the batch is bitwise unchanged.
        seed: Seed of the choice, together with the content of the batch.
    """
    return prune_frames(model, model.batch(prompts, replies), prompts, replies, share, seed)


def prune_frames(
    model: AudioModel,
    batch: dict[str, torch.Tensor],
    prompts: Sequence[Prompt],
    replies: Sequence[str],
    share: float,
    seed: int,
) -> dict[str, torch.Tensor]:
    """Prune the silent frames of a batch. Gradients flow through to its `inputs_embeds`.

    Args:
        model: The model.
        batch: The result of `AudioModel.batch`.
        prompts: Its prompts.
        replies: Their replies.
        share: As in `prune_batch`.
        seed: As in `prune_batch`.
    """
    attention_mask = batch["attention_mask"].bool()
    audio_mask = audio_token_mask(model, prompts, attention_mask)
    rng = np.random.default_rng([seed, _digest(prompts, replies)])
    for row, prompt in enumerate(prompts):
        if prompt.modality == "audio":
            silent = silent_frames_of_prompt(model, prompt)
            dropped = silent & torch.from_numpy(rng.random(len(silent)) >= share)
            attention_mask[row, audio_mask[row].nonzero()[:, 0][dropped.to(audio_mask.device)]] = False
    return {name: _drop_and_pad(value, attention_mask, name) for name, value in batch.items()}


def audio_token_mask(model: AudioModel, prompts: Sequence[Prompt], attention_mask: torch.Tensor) -> torch.Tensor:
    """Mask (batch, tokens) bool of the audio vectors in a left-padded batch with replies."""
    mask = torch.zeros_like(attention_mask, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        if prompt.modality == "audio":
            # Replies follow the prompt, so a row's prompt begins where its padding ends.
            begin = attention_mask.shape[1] - int(attention_mask[row].sum())
            ids = torch.tensor(model.prompt_ids(prompt))
            mask[row, begin : begin + len(ids)] = (ids == model.processor.audio_token_id).to(mask.device)
    return mask


def silent_frames_of_prompt(model: AudioModel, prompt: Prompt) -> torch.Tensor:
    """Mask (placeholders,) bool of the silent frames of an audio prompt."""
    detect_silence: Any = import_object(str(model.family.silence_detector))
    silent: torch.Tensor = detect_silence(model.base, model.features_of(prompt.sample).vectors)
    return silent.cpu()


def _digest(prompts: Sequence[Prompt], replies: Sequence[str]) -> int:
    """Hash of a batch, which a resumed training reproduces in any order."""
    content = "\0".join(f"{prompt.sample.id} {prompt.modality} {reply}" for prompt, reply in zip(prompts, replies))
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")


def _drop_and_pad(value: torch.Tensor, attention_mask: torch.Tensor, name: str) -> torch.Tensor:
    """(batch, width, …) -> the unmasked positions, left-padded to the longest row."""
    width = int(attention_mask.sum(1).max())
    if width == attention_mask.shape[1]:
        return value
    out = value.new_full((len(value), width, *value.shape[2:]), -100 if name == "labels" else 0)
    for row, row_mask in enumerate(attention_mask):
        count = int(row_mask.sum())
        out[row, width - count :] = value[row, row_mask]
    return out
