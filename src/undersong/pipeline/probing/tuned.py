"""What is asked of the tuned model: where the gap went, what still tells harm, and what gives the refusal back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.mechanism import fit_direction, gap_curve, late_change, late_p
from undersong.mechanism.causal import beats_random, into, random_directions
from undersong.mechanism.directions import late_layers
from undersong.mechanism.drift import drift
from undersong.mechanism.interventions import changed
from undersong.mechanism.odds import refusal_odds
from undersong.mechanism.parts import parts_of, without
from undersong.mechanism.patching import Recovery, patched_odds, recovery
from undersong.mechanism.recognition import behaviours
from undersong.pipeline.probing.asked import Probing, Sides
from undersong.pipeline.probing.base import Base, rates, reply_losses
from undersong.pipeline.probing.numbers import by_place, number
from undersong.pipeline.probing.recognised import recognised, recognition
from undersong.pipeline.probing.replied import Asking

if TYPE_CHECKING:
    from undersong.mechanism import Direction
    from undersong.models.adapter import AudioModel

OVER_REFUSAL = 0.1  # most that a strength may add on the prompts it is chosen on


def examine_tuned(
    model: AudioModel, base: Base, sides: dict[str, Sides], asking: Asking, what: Probing
) -> dict[str, Any]:
    """The same held-out prompts as of the base, and all that is read off them."""
    fit, test = sides["fit"], sides["test"]
    states = model.hidden(test.harmful), model.hidden(test.harmless)
    fitted = model.hidden(fit.harmful), model.hidden(fit.harmless)
    refit = fit_direction(*fitted)
    said, known = asking.ask(model, test.both), recognised(model, sides, fitted, states, what.nested)
    found: dict[str, Any] = {
        "said": rates(said, len(test.harmful)),
        "encoder_difference": float(model.hearing_difference([p.sample for p in test.both if p.sample.audio])[0]),
        **_gaps(base, states, refit, test),
        **_drift(base, states, test),
    }
    if base.recognised is not None and known is not None:
        found["recognition"] = recognition(base.recognised, known, (base.said, said), sides, what.margin)
    if base.tokens is not None and base.odds is not None:
        found |= _given_back(model, base, test)
    if base.place is not None:
        found["steering"] = _steering(model, base, sides, asking, what)
    return found


def _gaps(base: Base, states: tuple[np.ndarray, np.ndarray], refit: Direction, test: Sides) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    before, after = ([base.direction.project(side) for side in pair] for pair in (base.states, states))
    curves = [gap_curve(pair[0], pair[1], *test.clusters, rng) for pair in (before, after)]
    sides = {"before": curves[0], "after": curves[1]}
    columns = {
        f"{name}_{when}": getattr(curve, name)
        for when, curve in sides.items()
        for name in ("harmful", "harmless", "gap", "low", "high")
    }
    change, low, high = late_change((before[0], before[1]), (after[0], after[1]), test.clusters, rng)
    p = late_p((after[0] - before[0], after[1] - before[1]), test.clusters)
    last = late_layers(len(curves[0].gap) - 1)
    late = {
        "before": number(float(np.mean(curves[0].gap[last]))),
        "change": number(change),
        "low": number(low),
        "high": number(high),
        "p": number(p),
    }
    return {"gaps": by_place(**columns, cosine_to_refit=base.direction.cosine(refit)), "late_gap": late}


def _drift(base: Base, states: tuple[np.ndarray, np.ndarray], test: Sides) -> dict[str, Any]:
    whole = [np.concatenate(pair, axis=1) for pair in (base.states, states)]
    found = drift(whole[0], whole[1], behaviours(test.samples, "held-out"))
    columns = {name: getattr(found, name) for name in ("relative", "low", "high", "cka")}
    return {"drift": by_place(**columns), "input_difference": found.at_input}


def _given_back(model: AudioModel, base: Base, test: Sides) -> dict[str, Any]:
    """What the base's states, and the adapter without its parts, give back of the refusal's odds."""
    assert base.tokens is not None
    assert base.odds is not None
    tuned, clusters = refusal_odds(model, test.harmful, base.tokens), test.clusters[0]
    patched = recovery(base.odds, tuned, patched_odds(model, base.states[0], test.harmful, base.tokens), clusters)
    found: dict[str, Any] = {
        "odds_lost": dict(zip(("value", "low", "high"), patched.lost)),
        "patching": by_place(share=patched.share, low=patched.low, high=patched.high) if patched.is_something else None,
    }
    if hasattr(model.model, "peft_config") and patched.is_something:
        parts, odds = parts_of(model), []
        for modules in parts.values():
            with without(modules):
                odds.append(refusal_odds(model, test.harmful, base.tokens))
        found["parts"] = _named(list(parts), recovery(base.odds, tuned, np.stack(odds), clusters))
    return found


def _named(names: list[str], found: Recovery) -> list[dict[str, Any]]:
    return [
        {"part": name, "share": number(found.share[i]), "low": number(found.low[i]), "high": number(found.high[i])}
        for i, name in enumerate(names)
    ]


def _steering(model: AudioModel, base: Base, sides: dict[str, Sides], asking: Asking, what: Probing) -> dict[str, Any]:
    """The base's direction put back: the strength chosen on `choose`, told on `test`, beside directions of chance."""
    assert base.place is not None
    assert base.tokens is not None
    choose, test, place, tokens = sides["choose"], sides["test"], base.place, base.tokens

    def said(strength: float, prompts: Sides, direction: Direction = base.direction) -> dict[str, Any]:
        hands = changed(model.decoder.layers, into(direction, place, strength)([]))
        return rates(asking.ask(model, prompts.both, hands), len(prompts.harmful))

    tried: list[dict[str, Any]] = [
        {"strength": strength, "said": said(strength, choose)} for strength in (0.0, *what.strengths)
    ]
    plain = tried[0]["said"]["harmless"]["refusal_rate"]
    fit = [one for one in tried[1:] if one["said"]["harmless"]["refusal_rate"] <= plain + OVER_REFUSAL]
    chosen = min(fit, key=lambda one: (_attacks(one["said"]), one["strength"])) if fit else None
    if chosen is None or _attacks(chosen["said"]) >= _attacks(tried[0]["said"]):
        return {"place": place, "tried": tried, "strength": None}
    strength = chosen["strength"]
    before = refusal_odds(model, test.harmful, tokens)

    def gain(direction: Direction) -> float:
        return float((refusal_odds(model, test.harmful, tokens, into(direction, place, strength)) - before).mean())

    effect = gain(base.direction)
    others = random_directions(base.direction, base.fitted, sides["fit"].clusters, what.random, what.seed)
    chance = [gain(one) for one in others]
    return {
        "place": place,
        "tried": tried,
        "strength": strength,
        "odds_gained": effect,
        "odds_gained_at_random": chance,
        "p": beats_random(effect, chance),
        "said": said(strength, test),
        "loss": reply_losses(
            model, base, test, lambda: changed(model.decoder.layers, into(base.direction, place, strength)([]))
        ),
    }


def _attacks(said: dict[str, Any]) -> float:
    from undersong.pipeline.results.rates import attack_rate

    return attack_rate(said["harmful"])
