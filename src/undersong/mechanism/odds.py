"""How likely a model is to begin with a refusal: log odds of the tokens that its refusals begin with.

One forward pass a prompt says what a whole reply would (Arditi et al. 2024, arXiv 2406.11717, 2.4), so that every layer
and part can be tried.  Here the tokens are taken from the base's own replies and not from a list, and are only used
where they tell the base's refusals from its other replies.  Knows models and prompts; judges nothing.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from undersong.mechanism.interventions import Change, changed
from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel

BATCH = 32
TELLS = 0.9  # share of replies of each kind that the first token must place rightly
Changes = Callable[[Sequence[int]], Mapping[int, Change]]  # places of a batch's prompts -> what is done at which layer


def refusal_tokens(first: Sequence[int], refused: Sequence[bool]) -> list[int]:
    """The tokens that more refusals than other replies begin with, by share of each; from replies of the base.

    Raises UndersongError where there are no refusals or no other replies, or the first token does not tell them apart.
    """
    kinds = [Counter(token for token, no in zip(first, refused) if no is kind) for kind in (True, False)]
    counts = [sum(kind.values()) for kind in kinds]
    if not all(counts):
        missing = "refused nothing" if not counts[0] else "refused everything"
        raise UndersongError(
            f"The base {missing} of {len(first)} prompts, so nothing tells how a refusal begins; give prompts of "
            "both kinds."
        )
    tokens = [token for token in kinds[0] if kinds[0][token] / counts[0] > kinds[1][token] / counts[1]]
    inside = [sum(kind[token] for token in tokens) / count for kind, count in zip(kinds, counts)]
    if inside[0] < TELLS or inside[1] > 1 - TELLS:
        raise UndersongError(
            f"{inside[0]:.0%} of the base's refusals and {inside[1]:.0%} of its other replies begin with the same "
            "tokens, so the first token does not tell a refusal; measure by whole replies."
        )
    return sorted(tokens)


def refusal_odds(
    model: AudioModel, prompts: Sequence[Prompt], tokens: Sequence[int], changes: Changes | None = None
) -> np.ndarray:
    """(prompts,) float64: log odds that the reply begins with one of `tokens`, under `changes`."""
    odds = np.empty(len(prompts))
    for rows, logits in _first(model, prompts, changes):
        chosen = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        chosen[list(tokens)] = True
        sides = [logits.masked_fill(other, -torch.inf).logsumexp(1) for other in (~chosen, chosen)]
        odds[rows] = (sides[0] - sides[1]).double().cpu().numpy()
    if not np.isfinite(odds).all():
        lost = prompts[int(np.flatnonzero(~np.isfinite(odds))[0])].sample.id
        raise UndersongError(f"What the model says first to {lost} is no number; check its dtype.")
    return odds


def first_tokens(model: AudioModel, prompts: Sequence[Prompt], changes: Changes | None = None) -> list[int]:
    """The likeliest first token of each reply."""
    found: dict[int, int] = {}
    for rows, logits in _first(model, prompts, changes):
        found |= dict(zip(rows, logits.argmax(1).tolist()))
    return [found[i] for i in range(len(prompts))]


def moved(model: AudioModel, prompts: Sequence[Prompt], changes: Changes) -> np.ndarray:
    """(prompts,): Kullback-Leibler divergence of the first token's distribution without `changes` from that with."""
    found = np.empty(len(prompts))
    pairs = zip(_first(model, prompts, None), _first(model, prompts, changes), strict=True)
    for (rows, plain), (_, other) in pairs:
        p, q = plain.log_softmax(1), other.log_softmax(1)
        found[rows] = (p.exp() * (p - q)).sum(1).double().cpu().numpy()
    return found


def _first(model: AudioModel, prompts: Sequence[Prompt], changes: Changes | None) -> Any:
    """(places of a batch's prompts, logits (batch, vocabulary) float32 of the token after each)."""
    model.model.eval()
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.base.forward).parameters else {}
    for rows in model.by_length(prompts, BATCH):
        with torch.inference_mode(), changed(model.decoder.layers, changes(rows) if changes is not None else {}):
            out = model.model(**model.batch([prompts[i] for i in rows]), use_cache=False, **last)
        yield rows, out.logits[:, -1].float()
