"""Log probability that a reply begins with given tokens: a pass over the prompt, and one for each path of tokens."""

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
    values = [
        np.array([float(row[sequence[0]]) for sequence in sequences]) for row, sequences in zip(first.cpu(), starts)
    ]
    paths = [shared_paths(sequences) for sequences in starts]
    for j in range(max(map(len, paths), default=0)):
        # A prompt with fewer paths repeats its last one, whose values are added once only.
        tokens = _pad([own[min(j, len(own) - 1)] if own else (0,) for own in paths]).to(first.device)
        following = _following_log_probabilities(model, inputs, output.cache, next_positions, tokens)
        for i, own in enumerate(paths):
            if j < len(own):
                _add_path(values[i], starts[i], paths[i], j, following[i])
    return values


def shared_paths(sequences: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Fewest token paths that lead to the last token of every sequence.

    A pass over a path gives the probabilities of all tokens that follow a beginning of it, so a path that is the
    beginning of another one needs no pass, and neither does a sequence of one token.
    """
    leading = sorted({tuple(sequence[:-1]) for sequence in sequences if len(sequence) > 1})
    # In this order a path comes right before those that it begins.
    following = [*leading[1:], ()]
    return [path for path, after in zip(leading, following) if after[: len(path)] != path]


def _add_path(
    totals: np.ndarray,
    sequences: Sequence[Sequence[int]],
    paths: Sequence[tuple[int, ...]],
    number: int,
    following: torch.Tensor,
) -> None:
    """Add the tokens after the first of every sequence that path `number` is the first to lead to.

    Args:
        totals: Log probabilities (sequences,) of the first tokens, added to in place.
        sequences: The sequences.
        paths: Paths of the prompt.
        number: Which path was passed.
        following: Log probabilities (path, vocabulary) of the token after each token of the path.
    """
    for row, sequence in enumerate(sequences):
        given = tuple(sequence[:-1])
        if given and number == next(k for k, path in enumerate(paths) if path[: len(given)] == given):
            steps = torch.arange(len(given), device=following.device)
            tokens = torch.tensor(list(sequence[1:]), device=following.device)
            totals[row] += float(following[steps, tokens].double().sum())


def _pad(paths: Sequence[Sequence[int]]) -> torch.Tensor:
    """Right-padded tokens (paths, longest); a causal decoder never reads the padding."""
    tokens = torch.zeros((len(paths), max(map(len, paths))), dtype=torch.long)
    for row, path in enumerate(paths):
        tokens[row, : len(path)] = torch.tensor(list(path))
    return tokens


def _following_log_probabilities(
    model: AudioModel,
    inputs: dict[str, torch.Tensor],
    prompt_cache: object,
    next_positions: torch.Tensor,
    tokens: torch.Tensor,
) -> torch.Tensor:
    """Log probabilities (batch, tokens, vocabulary) of what follows each token, given the prompt and those before it.

    Args:
        model: The model.
        inputs: Tensors of the prompts' own pass.
        prompt_cache: Keys and values of that pass. It is copied, because a decoder appends to it.
        next_positions: Position (batch, 1) of the first reply token.
        tokens: Reply tokens (batch, tokens).
    """
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(tokens, dtype=inputs["attention_mask"].dtype)], 1)
    output = model.model(
        inputs_embeds=model.family.embed(model.base, tokens),
        attention_mask=mask,
        position_ids=next_positions + torch.arange(tokens.shape[1], device=tokens.device)[None],
        cache=copy.deepcopy(prompt_cache),
        use_cache=True,
        **model.keep_logits(tokens.shape[1]),
    )
    log_probabilities: torch.Tensor = output.logits[:, -tokens.shape[1] :].float().log_softmax(-1)
    return log_probabilities
