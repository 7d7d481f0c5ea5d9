"""What a probe found, in sentences.  Nothing is said that its own test does not carry."""

from __future__ import annotations

from math import exp
from typing import Any

from undersong.pipeline.results.rates import attack_name, attack_rate
from undersong.study.judges import RATES

SURE = 0.05
MOST = 0.5  # share of what was lost that a place or part must give back to be named


def findings(results: dict[str, Any]) -> list[str]:
    """What a probing found, a sentence each, from its results.json."""
    base, tuned = results["base"], results["tuned"]
    said = [_rates_sentence(base, tuned)]
    difference, at_input = tuned["encoder_difference"], tuned["input_difference"]
    moved = max(difference, at_input)
    said.append(
        "Encoder and projector have the same hashes, and what they give the decoder is the same to the last bit."
        if moved == 0 and all(results["encoder"].values())
        else f"What goes into the decoder has changed by up to {moved:.3g}: another model hears."
    )
    said += [
        _gap_sentence(tuned["late_gap"]),
        *([_known_sentence(tuned["recognition"])] if "recognition" in tuned else []),
        *_cause_sentences(base, tuned),
        *_given_back_sentences(tuned),
    ]
    return said


def _rates_sentence(base: dict[str, Any], tuned: dict[str, Any]) -> str:
    sides = [one["said"] for one in (base, tuned)]
    name = _name(base)
    rates = [attack_rate(side["harmful"]) for side in sides]
    refused = [side["harmless"]["refusal_rate"] for side in sides]
    n = sides[0]["harmful"]["n"]
    return (
        f"{name[:1].upper()}{name[1:]} {rates[0]:.1%} before and {rates[1]:.1%} after, of {n} held-out prompts; "
        f"harmless ones refused {refused[0]:.1%} and {refused[1]:.1%}."
    )


def _name(base: dict[str, Any]) -> str:
    return RATES[attack_name(base["said"]["harmful"]["judge"])]


def _gap_sentence(late: dict[str, Any]) -> str:
    if late["p"] is None or late["low"] is None:
        return "The refusal gap of the late layers has no interval here."
    where = f"{late['change']:+.2f} [{late['low']:+.2f}, {late['high']:+.2f}], p = {late['p']:.2g}"
    if late["p"] >= SURE:
        return f"The gap between harmful and harmless prompts in the late layers did not provably change ({where})."
    word = "shrank" if late["change"] < 0 else "grew"
    base = f"the base’s is {late['before']:.2f}"
    return f"The gap between harmful and harmless prompts in the late layers {word} ({where}; {base})."


def _known_sentence(known: dict[str, Any]) -> str:
    was, now = ("–" if known[when] is None else f"{known[when]:.1%}" for when in ("before", "after"))
    return f"{known['sentence']} Late probes tell {was} of held-out prompts rightly before and {now} after."


def _cause_sentences(base: dict[str, Any], tuned: dict[str, Any]) -> list[str]:
    out = []
    if ablation := base.get("ablation"):
        costs = "costs" if ablation["p"] <= SURE else "does not provably cost"
        out.append(
            f"Taking layer {ablation['place']}’s direction out of the base {costs} refusal (log odds "
            f"−{ablation['odds_lost']:.1f}, p = {ablation['p']:.2g} among directions of chance): {_name(base)} "
            f"{attack_rate(ablation['said']['harmful']):.1%}, harmless refused "
            f"{ablation['said']['harmless']['refusal_rate']:.1%}{_perplexity(ablation['loss'])}."
        )
    steering = tuned.get("steering")
    if steering and steering["strength"] is not None:
        out.append(
            f"Put back into the tuned model at strength {steering['strength']:g} it gives {_name(base)} "
            f"{attack_rate(steering['said']['harmful']):.1%} and harmless refused "
            f"{steering['said']['harmless']['refusal_rate']:.1%} (p = {steering['p']:.2g} among directions of "
            f"chance){_perplexity(steering['loss'])}."
        )
    elif steering:
        out.append(
            f"No strength of the base’s direction, put back, lowered the {_name(base)} without refusing harmless "
            "prompts."
        )
    return out


def _perplexity(loss: dict[str, float]) -> str:
    """Of the base's replies to harmless prompts, a token."""
    return f"; perplexity of the base’s own harmless replies {exp(loss['before']):.2f} to {exp(loss['after']):.2f}"


def _given_back_sentences(tuned: dict[str, Any]) -> list[str]:
    out = []
    if (lost := tuned.get("odds_lost")) and not tuned["patching"]:
        out.append(f"Refusal lost nothing that could be given back (log odds {lost['value']:.2f}).")
    if patched := tuned.get("patching"):
        first = next((one["place"] for one in patched if one["low"] is not None and one["low"] >= MOST), None)
        if first is not None:
            out.append(f"The base’s states give back at least half of the refusal from layer {first} on.")
    if parts := tuned.get("parts"):
        strong = [one for one in parts if one["low"] is not None and one["low"] >= MOST]
        told = ", ".join(f"{one['part']} {one['share']:.0%}" for one in strong)
        out.append(
            f"Of the adapter’s parts these, switched off alone, give back at least half: {told}."
            if strong
            else "No single part of the adapter, switched off, gives back half: the loss is spread."
        )
    return out
