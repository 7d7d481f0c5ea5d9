"""Refusal score: log odds that a reply begins with a refusal token (Arditi et al. 2024, section 2.4), and first-token
KL divergence under interventions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from undersong.models.interventions import Intervention, Site, apply_interventions
from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

BATCH_SIZE = 32
MIN_FIRST_TOKEN_ACCURACY = 0.9  # share of replies of each kind that the first token must classify correctly
# Indices of a batch's prompts -> intervention of each site
BatchInterventions = Callable[[Sequence[int]], Mapping[Site, Intervention]]


def refusal_tokens(reply_starts: Sequence[int], refused: Sequence[bool]) -> list[int]:
    """First tokens that are more frequent among the base's refusals than among its other replies.

    Raises:
        UndersongError: There are no refusals or no other replies, or the first token does not separate them.
    """
    kinds = [
        Counter(token for token, is_refusal in zip(reply_starts, refused) if is_refusal is kind)
        for kind in (True, False)
    ]
    counts = [sum(kind.values()) for kind in kinds]
    if not all(counts):
        missing = "refused nothing" if not counts[0] else "refused everything"
        raise UndersongError(
            f"The base {missing} of {len(reply_starts)} prompts, so it is unknown how a refusal begins; "
            "give prompts of both kinds."
        )
    tokens = [token for token in kinds[0] if kinds[0][token] / counts[0] > kinds[1][token] / counts[1]]
    start_shares = [sum(kind[token] for token in tokens) / count for kind, count in zip(kinds, counts)]
    if start_shares[0] < MIN_FIRST_TOKEN_ACCURACY or start_shares[1] > 1 - MIN_FIRST_TOKEN_ACCURACY:
        raise UndersongError(
            f"{start_shares[0]:.0%} of the base's refusals and {start_shares[1]:.0%} of its other replies begin with "
            "the same tokens, so the first token does not identify a refusal; judge whole replies."
        )
    return sorted(tokens)


def refusal_scores(
    model: AudioModel, prompts: Sequence[Prompt], tokens: Sequence[int], interventions: BatchInterventions | None = None
) -> np.ndarray:
    """Log odds (prompts,) float64 that the reply begins with a refusal token.

    Args:
        model: The model.
        prompts: The prompts.
        tokens: Refusal tokens.
        interventions: Interventions of each batch.

    Raises:
        UndersongError: A score is not finite.
    """

    def score(rows: Sequence[int]) -> list[float]:
        logits = _first_token_logits(model, prompts, rows, interventions)
        refusal_mask = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        refusal_mask[list(tokens)] = True
        log_masses = [logits.masked_fill(mask, -torch.inf).logsumexp(1) for mask in (~refusal_mask, refusal_mask)]
        log_odds: list[float] = (log_masses[0] - log_masses[1]).double().tolist()
        return log_odds

    scores = np.array(_measure_batches(model, prompts, score), dtype=np.float64)
    if not np.isfinite(scores).all():
        prompt_id = prompts[int(np.flatnonzero(~np.isfinite(scores))[0])].sample.id
        raise UndersongError(f"The first-token logits of prompt {prompt_id} are not finite; check the model's dtype.")
    return scores


def first_tokens(
    model: AudioModel, prompts: Sequence[Prompt], interventions: BatchInterventions | None = None
) -> list[int]:
    """Most likely first token of each reply."""

    def most_likely(rows: Sequence[int]) -> list[int]:
        tokens: list[int] = _first_token_logits(model, prompts, rows, interventions).argmax(1).tolist()
        return tokens

    return _measure_batches(model, prompts, most_likely)


def first_token_kl(model: AudioModel, prompts: Sequence[Prompt], interventions: BatchInterventions) -> np.ndarray:
    """Kullback-Leibler divergence (prompts,) of the first token's distribution, without the interventions from with
    them."""

    def diverge(rows: Sequence[int]) -> list[float]:
        p = _first_token_logits(model, prompts, rows, None).log_softmax(1)
        q = _first_token_logits(model, prompts, rows, interventions).log_softmax(1)
        divergences: list[float] = (p.exp() * (p - q)).sum(1).double().tolist()
        return divergences

    return np.array(_measure_batches(model, prompts, diverge), dtype=np.float64)


def _measure_batches(
    model: AudioModel, prompts: Sequence[Prompt], measure: Callable[[Sequence[int]], Sequence[Any]]
) -> list[Any]:
    """One value a prompt, of batches by length; a batch that runs out of memory is halved."""
    return model.batch_results(measure, prompts, min(model.batch_size or BATCH_SIZE, BATCH_SIZE))


def _first_token_logits(
    model: AudioModel, prompts: Sequence[Prompt], rows: Sequence[int], interventions: BatchInterventions | None
) -> torch.Tensor:
    """Logits (batch, vocabulary) float32 of the token after each of these prompts."""
    model.model.eval()
    with apply_interventions(model.decoder.layers, interventions(rows) if interventions is not None else {}):
        return model.last_logits([prompts[i] for i in rows]).float()
