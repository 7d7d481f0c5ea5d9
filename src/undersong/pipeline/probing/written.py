"""What a probe found, in sentences and in a page of Markdown.  Nothing is said that its own test does not carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from undersong.pipeline.results.rates import attack_name, attack_rate

SURE = 0.05
MOST = 0.5  # share of what was lost that a place or part must give back to be named


def findings(results: dict[str, Any]) -> list[str]:
    base, tuned = results["base"], results["tuned"]
    said = [_rates_sentence(base, tuned)]
    difference, at_input = tuned["encoder_difference"], tuned["input_difference"]
    moved = max(difference, at_input)
    said.append(
        "What the encoder gives the decoder is the same to the last bit."
        if moved == 0
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
    name = "JSR" if attack_name(sides[0]["harmful"]["judge"]) == "jsr" else "Non-refusal rate"
    rates = [attack_rate(side["harmful"]) for side in sides]
    refused = [side["harmless"]["refusal_rate"] for side in sides]
    n = sides[0]["harmful"]["n"]
    return (
        f"{name} {rates[0]:.1%} before and {rates[1]:.1%} after, of {n} held-out prompts; harmless ones refused "
        f"{refused[0]:.1%} and {refused[1]:.1%}."
    )


def _gap_sentence(late: dict[str, Any]) -> str:
    if late["p"] is None or late["low"] is None:
        return "The refusal gap of the late layers has no interval here."
    where = f"{late['change']:+.2f} [{late['low']:+.2f}, {late['high']:+.2f}], p = {late['p']:.2g}"
    if late["p"] >= SURE:
        return f"The gap between harmful and harmless prompts in the late layers did not provably change ({where})."
    word = "shrank" if late["change"] < 0 else "grew"
    return f"The gap between harmful and harmless prompts in the late layers {word} ({where}; the base’s is about 2)."


def _known_sentence(known: dict[str, Any]) -> str:
    was, now = ("–" if known[when] is None else f"{known[when]:.1%}" for when in ("before", "after"))
    return f"{known['sentence']} Late probes tell {was} of held-out prompts rightly before and {now} after."


def _cause_sentences(base: dict[str, Any], tuned: dict[str, Any]) -> list[str]:
    out = []
    if ablation := base.get("ablation"):
        costs = "costs" if ablation["p"] <= SURE else "does not provably cost"
        out.append(
            f"Taking layer {ablation['place']}’s direction out of the base {costs} refusal (log odds "
            f"−{ablation['odds_lost']:.1f}, p = {ablation['p']:.2g} among directions of chance): JSR "
            f"{attack_rate(ablation['said']['harmful']):.1%}, harmless refused "
            f"{ablation['said']['harmless']['refusal_rate']:.1%}."
        )
    steering = tuned.get("steering")
    if steering and steering["strength"] is not None:
        out.append(
            f"Put back into the tuned model at strength {steering['strength']:g} it gives JSR "
            f"{attack_rate(steering['said']['harmful']):.1%} and harmless refused "
            f"{steering['said']['harmless']['refusal_rate']:.1%} (p = {steering['p']:.2g} among directions of chance)."
        )
    elif steering:
        out.append("No strength of the base’s direction, put back, lowered the JSR without refusing harmless prompts.")
    return out


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


def markdown(results: dict[str, Any]) -> str:
    """The findings, then every table."""
    base, tuned = results["base"], results["tuned"]
    lines = [f"# Probe of {results['model']}, {results['modality']}", "", *(f"- {one}" for one in results["findings"])]
    lines += ["", *(f"> {note}" for note in results["notes"])]
    gaps = [[one[key] for key in ("place", "gap_before", "gap_after", "low_after", "high_after", "cosine_to_refit")]
            for one in tuned["gaps"]]  # fmt: skip
    moved = [[one[key] for key in ("place", "relative", "low", "high", "cka")] for one in tuned["drift"]]
    lines += _table("Gap along the base’s direction, by layer (0: the decoder’s input)",
                    ("layer", "before", "after", "low", "high", "cosine to re-fitted"), gaps)  # fmt: skip
    lines += _table("Drift of the states", ("layer", "relative", "low", "high", "CKA"), moved)
    keys = tuple(f"{name}_{when}" for when in ("before", "after") for name in ("accuracy", "low", "high"))
    if known := tuned.get("recognition"):
        rows = [[one[key] for key in ("place", *keys)] for one in known["by_place"]]
        head = ("layer", "before", "low", "high", "after", "low", "high")
        lines += _table("Harmful or harmless? Balanced accuracy of a probe on held-out prompts", head, rows)
    if patched := tuned.get("patching"):
        rows = [[one[key] for key in ("place", "share", "low", "high")] for one in patched]
        lines += _table("What the base’s state gives back", ("layer", "share", "low", "high"), rows)
    if parts := tuned.get("parts"):
        rows = [[one[key] for key in ("part", "share", "low", "high")] for one in parts]
        lines += _table("What the adapter without a part gives back", ("part", "share", "low", "high"), rows)
    if tried := base.get("candidates"):
        keys = ("place", "bypass", "induce", "divergence")
        lines += _table("Where the direction was tried", keys, [[one[key] for key in keys] for one in tried])
    return "\n".join(lines) + "\n"


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    def cell(value: Any) -> str:
        return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    body = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return ["", f"## {title}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body]
