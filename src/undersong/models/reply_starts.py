"""Log probability that a reply begins with given tokens, by one pass over the prompt and one over the tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

BATCH_SIZE = 32  # the prompt's keys and values are held twice


@torch.inference_mode()
def reply_start_log_probabilities(
    model: AudioModel, prompts: Sequence[Prompt], starts: Sequence[Sequence[Sequence[int]]]
) -> list[np.ndarray]:
    """Log probabilities that the reply to each prompt begins with each of the prompt's token sequences.

    Args:
        model: The model.
        prompts: The prompts.
        starts: For each prompt, its token sequences; each has at least one token.

    Returns:
        For each prompt, an array (sequences,) float64.

    Raises:
        UndersongError: Prompts and starts differ in number, a sequence is empty, or a probability is not finite.
    """
    if len(prompts) != len(starts):
        raise UndersongError(f"{len(prompts)} prompts have {len(starts)} lists of reply starts; give one per prompt.")
    for prompt, sequences in zip(prompts, starts):
        if not all(sequences):
            raise UndersongError(f"Prompt {prompt.sample.id} has a reply start without a token; leave it out.")
    model.model.eval()

    def score(rows: Sequence[int]) -> list[np.ndarray]:
        return _score_batch(model, [prompts[i] for i in rows], [starts[i] for i in rows])

    values: list[np.ndarray] = model.batch_results(score, prompts, min(model.batch_size or BATCH_SIZE, BATCH_SIZE))
    for prompt, own in zip(prompts, values):
        if not np.isfinite(own).all():
            raise UndersongError(
                f"The log probabilities of reply starts of prompt {prompt.sample.id} are not finite; check the model's "
                "dtype."
            )
    return values


def _score_batch(
    model: AudioModel, prompts: Sequence[Prompt], starts: Sequence[Sequence[Sequence[int]]]
) -> list[np.ndarray]:
    inputs = model.batch(prompts)
    output = model.model(**inputs, use_cache=True, **model.keep_logits(1))
    first = output.logits[:, -1].float().log_softmax(-1)
    next_positions = inputs["position_ids"][:, -1:] + 1
    values = [np.zeros(len(sequences)) for sequences in starts]
    for j in range(max(map(len, starts), default=0)):
        # A prompt with fewer sequences repeats its last one, whose value is written to its own place only.
        tokens, lengths = _pad([sequences[min(j, len(sequences) - 1)] if sequences else [0] for sequences in starts])
        tokens = tokens.to(first.device)
        totals = first.gather(1, tokens[:, :1])[:, 0].double()
        if tokens.shape[1] > 1:
            following = _following_log_probabilities(model, inputs, output.cache, next_positions, tokens)
            counted = torch.arange(1, tokens.shape[1])[None] < torch.tensor(lengths)[:, None]
            totals = totals + (following.double() * counted.to(following.device)).sum(1)
        for value, sequences, total in zip(values, starts, totals.tolist()):
            if j < len(sequences):
                value[j] = total
    return values


def _pad(sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, list[int]]:
    """Right-padded tokens (sequences, longest), and their lengths; a causal decoder never reads the padding."""
    lengths = [len(sequence) for sequence in sequences]
    tokens = torch.zeros((len(sequences), max(lengths)), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.tensor(list(sequence))
    return tokens, lengths


def _following_log_probabilities(
    model: AudioModel,
    inputs: dict[str, torch.Tensor],
    prompt_cache: object,
    next_positions: torch.Tensor,
    tokens: torch.Tensor,
) -> torch.Tensor:
    """Log probabilities (batch, tokens - 1) of every token after the first, given the prompt and those before it.

    Args:
        model: The model.
        inputs: Tensors of the prompts' own pass.
        prompt_cache: Keys and values of that pass. It is copied, because a decoder appends to it.
        next_positions: Position (batch, 1) of the first reply token.
        tokens: Reply tokens (batch, tokens).
    """
    given = tokens[:, :-1]
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(given, dtype=inputs["attention_mask"].dtype)], 1)
    output = model.model(
        inputs_embeds=model.family.embed(model.base, given),
        attention_mask=mask,
        position_ids=next_positions + torch.arange(given.shape[1], device=given.device)[None],
        cache=copy.deepcopy(prompt_cache),
        use_cache=True,
        **model.keep_logits(given.shape[1]),
    )
    log_probabilities = output.logits[:, -given.shape[1] :].float().log_softmax(-1)
    return log_probabilities.gather(2, tokens[:, 1:, None])[:, :, 0]
