"""What is asked of the base: its refusal direction, how its refusals begin, and whether that is their cause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.mechanism import Direction, fit_direction, late_p
from undersong.mechanism.causal import beats_random, candidates, out_of, random_directions
from undersong.mechanism.choosing import best
from undersong.mechanism.interventions import changed
from undersong.mechanism.odds import first_tokens, refusal_odds, refusal_tokens
from undersong.pipeline.probing.asked import Probing, Sides
from undersong.pipeline.probing.numbers import number
from undersong.pipeline.probing.recognised import Recognised, recognised
from undersong.pipeline.probing.replied import Asking, Replied
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel

SURE = 0.05


@dataclass
class Base:
    """What the tuned model is set beside.  `place`: of the direction that is the cause, if one was found."""

    direction: Direction
    fitted: tuple[np.ndarray, np.ndarray]  # what it was fitted on, harmful and harmless
    states: tuple[np.ndarray, np.ndarray]  # held-out harmful and harmless (layers + 1, prompts, dim)
    said: Replied  # to the held-out prompts, harmful first
    separation: float  # p
    recognised: Recognised | None
    tokens: list[int] | None = None
    odds: np.ndarray | None = None  # of held-out harmful prompts
    place: int | None = None
    found: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def examine_base(model: AudioModel, sides: dict[str, Sides], asking: Asking, what: Probing) -> Base:
    """Directions on `fit`, the layer on `choose`, everything told on `test`."""
    fit, test = sides["fit"], sides["test"]
    fitted = model.hidden(fit.harmful), model.hidden(fit.harmless)
    direction = fit_direction(*fitted)
    states = model.hidden(test.harmful), model.hidden(test.harmless)
    projected = direction.project(states[0]), direction.project(states[1])
    said, separation = asking.ask(model, test.both), late_p(projected, test.clusters)
    base = Base(direction, fitted, states, said, separation, recognised(model, sides, fitted, states, what.nested))
    base.found["said"] = rates(base.said, len(test.harmful))
    base.found["separation_p"] = number(base.separation)
    if not base.separation < SURE:
        base.notes.append(
            f"Harmful and harmless prompts lie no further apart along the fitted direction than by chance (p = "
            f"{base.separation:.2f}), so there is no direction to follow, and layers are not ranked."
        )
        return base
    try:
        base.tokens = refusal_tokens(first_tokens(model, fit.both), asking.ask(model, fit.both).refused)
    except UndersongError as why:
        base.notes.append(f"{why}  Patching, parts and causes, which go by the first token, were left out.")
        return base
    base.found["refusals_begin_with"] = [model.tokenizer.decode([token]) for token in base.tokens]
    base.odds = refusal_odds(model, test.harmful, base.tokens)
    _cause(base, base.tokens, model, sides, asking, what)
    return base


def _cause(
    base: Base, tokens: Sequence[int], model: AudioModel, sides: dict[str, Sides], asking: Asking, what: Probing
) -> None:
    """The layer, and what happens to held-out prompts without its direction."""
    choose, test = sides["choose"], sides["test"]
    tried = candidates(model, base.direction, choose.harmful, choose.harmless, tokens)
    base.found["candidates"] = [asdict(one) for one in tried]
    base.place = best(tried, model.layers, what.divergence, what.depth)
    if base.place is None:
        base.notes.append(
            "No layer's direction induces refusal where it is put in and hardly touches harmless prompts where it is "
            "taken out, so none is called the cause."
        )
        return
    before, place = refusal_odds(model, test.harmful, tokens), base.place

    def drop(direction: Direction) -> float:
        after = refusal_odds(model, test.harmful, tokens, out_of(direction, place, model.layers))
        return float((before - after).mean())

    effect = drop(base.direction)
    others = random_directions(base.direction, base.fitted, sides["fit"].clusters, what.random, what.seed)
    chance = [drop(one) for one in others]

    def taken() -> AbstractContextManager[None]:
        return changed(model.decoder.layers, out_of(base.direction, place, model.layers)([]))

    said = asking.ask(model, test.both, taken())
    base.found["ablation"] = {
        "place": place,
        "odds_lost": effect,
        "odds_lost_at_random": chance,
        "p": beats_random(effect, chance),
        "said": rates(said, len(test.harmful)),
        "loss": reply_losses(model, base, test, taken),
    }


def reply_losses(
    model: AudioModel, base: Base, test: Sides, hands: Callable[[], AbstractContextManager[None]]
) -> dict[str, float]:
    """Mean cost of a token of the base's own replies to harmless prompts, without `hands` on the decoder and with.

    Its exponential is the perplexity.
    """
    from undersong.tuning.held_out import mean_loss

    replies = [reply.reply for reply in base.said.replies[len(test.harmful) :]]
    told = [(prompt, reply) for prompt, reply in zip(test.harmless, replies) if reply]
    asked, answers = [prompt for prompt, _ in told], [reply for _, reply in told]
    plain = mean_loss(model, asked, answers, 32)
    with hands():
        return {"before": plain, "after": mean_loss(model, asked, answers, 32)}


def rates(said: Replied, harmful: int) -> dict[str, Any]:
    """Of either side; the first `harmful` replies are to harmful prompts."""
    sides = [Replied(said.replies[part], said.verdicts[part]) for part in (slice(None, harmful), slice(harmful, None))]
    return {"harmful": sides[0].rate, "harmless": sides[1].rate}
