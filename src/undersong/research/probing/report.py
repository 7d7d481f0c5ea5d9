"""Findings of a probe as sentences, and the report `probe.md`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp
from typing import Any

from undersong.pages.markdown_table import markdown_table
from undersong.research.mechanism.directions import MIN_CONTRAST_LAYERS
from undersong.settings.judge_names import RATE_LABELS

SIGNIFICANCE_LEVEL = 0.05
MIN_RECOVERY = 0.5  # share of what was lost that a layer or part must give back to be named


def probe_findings(results: dict[str, Any]) -> list[str]:
    """Return the findings of a probe from its results, one sentence each."""
    base, tuned = results["base"], results["tuned"]
    sentences = [_rates_sentence(base, tuned)]
    encoder_difference, input_difference = tuned["encoder_difference"], tuned["input_difference"]
    largest_change = max(encoder_difference, input_difference)
    sentences.append(
        "Encoder and projector have the same hashes, and what they give the decoder is the same to the last bit."
        if largest_change == 0 and all(results["encoder"].values())
        else f"What goes into the decoder has changed by up to {largest_change:.3g}: another model hears."
    )
    sentences += [
        _gap_sentence(tuned["late_gap"]),
        _late_sentence(tuned["late_gap"], tuned["late_minus_early"], results["layers"]),
        *([_recognition_sentence(tuned["harm_recognition"])] if "harm_recognition" in tuned else []),
        *_cause_sentences(base, tuned),
        *_recovery_sentences(tuned),
    ]
    return sentences


def _rates_sentence(base: dict[str, Any], tuned: dict[str, Any]) -> str:
    reply_rates = [measured["reply_rates"] for measured in (base, tuned)]
    metric_name = _metric_name(base)
    attack_rates = [entry["harmful"]["rate"] for entry in reply_rates]
    benign_refusal_rates = [entry["benign"]["rate"] for entry in reply_rates]
    n = reply_rates[0]["harmful"]["n"]
    return (
        f"{metric_name[:1].upper()}{metric_name[1:]} {attack_rates[0]:.1%} before and {attack_rates[1]:.1%} after, "
        f"of {n} held-out prompts; "
        f"benign ones refused {benign_refusal_rates[0]:.1%} and {benign_refusal_rates[1]:.1%}."
    )


def _metric_name(base: dict[str, Any]) -> str:
    return RATE_LABELS[base["reply_rates"]["harmful"]["metric"]]


def _gap_sentence(late: dict[str, Any]) -> str:
    if late["p"] is None or late["low"] is None:
        return "The refusal gap of the late layers has no interval here."
    estimate = f"{late['change']:+.2f} [{late['low']:+.2f}, {late['high']:+.2f}], p = {late['p']:.2g}"
    if late["p"] >= SIGNIFICANCE_LEVEL:
        return f"The gap between harmful and benign prompts in the late layers did not provably change ({estimate})."
    verb = "shrank" if late["change"] < 0 else "grew"
    base_gap = f"the base’s is {late['before']:.2f}"
    return f"The gap between harmful and benign prompts in the late layers {verb} ({estimate}; {base_gap})."


def _late_sentence(late: dict[str, Any], contrast: dict[str, Any] | None, layers: int) -> str:
    """Say whether a suppression is late: the gap falls, and it falls more in late layers than in early ones."""
    if contrast is None:
        return (
            f"The model has {layers} layers, and late layers are told from early ones only with {MIN_CONTRAST_LAYERS} "
            "or more, so this cannot show that a suppression is late."
        )
    if contrast["p_value"] is None or contrast["low"] is None:
        return "The change of the gap in late minus early layers has no interval here."
    interval = f"[{contrast['low']:+.2f}, {contrast['high']:+.2f}]"
    estimate = f"{contrast['difference']:+.2f} {interval}, p = {contrast['p_value']:.2g}"
    if contrast["p_value"] >= SIGNIFICANCE_LEVEL:
        return f"The gap did not provably change more in the last third of layers than in the first third ({estimate})."
    if contrast["difference"] > 0:
        return f"The gap fell more, or grew less, in the first third of layers than in the last third ({estimate})."
    falls = late["high"] is not None and late["high"] < 0
    ending = "so the suppression is late" if falls else "but the late gap itself did not provably fall"
    thirds = "in the last third of layers than in the first third"
    return f"The gap fell more, or grew less, {thirds} ({estimate}), {ending}."


def _recognition_sentence(recognition: dict[str, Any]) -> str:
    before, after = (
        "–" if recognition[stage] is None else f"{recognition[stage]:.1%}" for stage in ("before", "after")
    )
    return f"{recognition['sentence']} Late probes tell {before} of held-out prompts rightly before and {after} after."


def _cause_sentences(base: dict[str, Any], tuned: dict[str, Any]) -> list[str]:
    sentences = []
    if ablation := base.get("ablation"):
        verb = "costs" if ablation["p"] <= SIGNIFICANCE_LEVEL else "does not provably cost"
        sentences.append(
            f"Taking layer {ablation['layer']}’s direction out of the base {verb} refusal (log odds "
            f"−{ablation['refusal_score_drop']:.1f}, p = {ablation['p']:.2g} among random directions): "
            f"{_metric_name(base)} {ablation['reply_rates']['harmful']['rate']:.1%}, benign refused "
            f"{ablation['reply_rates']['benign']['rate']:.1%}{_perplexity_clause(ablation['loss'])}."
        )
    steering = tuned.get("steering")
    if steering and steering["strength"] is not None:
        sentences.append(
            f"Put back into the tuned model at strength {steering['strength']:g} it gives {_metric_name(base)} "
            f"{steering['reply_rates']['harmful']['rate']:.1%} and benign refused "
            f"{steering['reply_rates']['benign']['rate']:.1%} (p = {steering['p']:.2g} among random "
            f"directions){_perplexity_clause(steering['loss'])}."
        )
    elif steering:
        sentences.append(
            f"No strength of the base’s direction, put back, lowered the {_metric_name(base)} without refusing benign "
            "prompts."
        )
    return sentences


def _perplexity_clause(loss: dict[str, float]) -> str:
    """Of the base's replies to benign prompts, a token."""
    return f"; perplexity of the base’s own benign replies {exp(loss['before']):.2f} to {exp(loss['after']):.2f}"


def _recovery_sentences(tuned: dict[str, Any]) -> list[str]:
    sentences = []
    if (refusal_loss := tuned.get("refusal_score_drop")) and not tuned["patching"]:
        sentences.append(f"Refusal lost nothing that could be given back (log odds {refusal_loss['value']:.2f}).")
    if patching := tuned.get("patching"):
        first_layer = next(
            (row["layer"] for row in patching if row["low"] is not None and row["low"] >= MIN_RECOVERY), None
        )
        if first_layer is not None:
            sentences.append(f"The base’s states give back at least half of the refusal from layer {first_layer} on.")
    if parts := tuned.get("module_groups"):
        strong_parts = [row for row in parts if row["low"] is not None and row["low"] >= MIN_RECOVERY]
        listing = ", ".join(f"{row['part']} {row['share']:.0%}" for row in strong_parts)
        sentences.append(
            f"Of the adapter’s parts these, switched off alone, give back at least half: {listing}."
            if strong_parts
            else "No single part of the adapter, switched off, gives back half: the loss is spread."
        )
    return sentences


# Title, location in the tuned model's results, and key -> column of each table.
GAP_COLUMNS = {
    "layer": "layer", "gap_before": "before", "gap_after": "after", "low_after": "low", "high_after": "high",
    "harmful_before": "harmful before", "harmful_after": "after", "benign_before": "benign before",
    "benign_after": "after", "cosine_to_refit": "cosine to re-fitted",
}  # fmt: skip
DRIFT_COLUMNS = {"layer": "layer", "relative": "relative", "low": "low", "high": "high", "cka": "CKA (debiased)"}
PROBE_COLUMNS = {
    "layer": "layer", "accuracy_before": "before", "low_before": "low", "high_before": "high",
    "accuracy_after": "after", "low_after": "low", "high_after": "high",
}  # fmt: skip
NESTED_COLUMNS = {
    "layer": "layer", "accuracy_before": "before", "p_before": "p (Holm)", "accuracy_after": "after",
    "p_after": "p (Holm)",
}  # fmt: skip
RECOVERY_COLUMNS = {"share": "share", "low": "low", "high": "high"}
CANDIDATE_COLUMNS = {
    "layer": "layer", "bypass": "log odds of refusing harmful without it", "induce": "benign with it",
    "divergence": "nats that benign prompts move without it",
}  # fmt: skip


def probe_markdown(results: dict[str, Any]) -> str:
    """The findings first."""
    base, tuned = results["base"], results["tuned"]
    recognition = tuned.get("harm_recognition", {})
    lines = [
        f"# Probe of {results['model']}, {results['modality']}",
        "",
        *(f"- {finding}" for finding in results["findings"]),
    ]
    lines += ["", *_option_lines(results), *(f"> {note}" for note in results["notes"])]
    for title, columns, rows in (
        ("Gap along the base’s direction, by layer (0: the decoder’s input)", GAP_COLUMNS, tuned["gaps"]),
        ("Drift of the states", DRIFT_COLUMNS, tuned["drift"]),
        ("Harmful or benign? Balanced accuracy of a probe on held-out prompts", PROBE_COLUMNS,
         recognition.get("by_layer")),
        ("The same by nested cross-validation in the contrast sets", NESTED_COLUMNS, recognition.get("nested")),
        ("What the base’s state gives back", {"layer": "layer", **RECOVERY_COLUMNS}, tuned.get("patching")),
        ("What the adapter without a part gives back", {"part": "part", **RECOVERY_COLUMNS},
         tuned.get("module_groups")),
        ("Where the direction was tried", CANDIDATE_COLUMNS, base.get("candidates")),
    ):  # fmt: skip
        lines += _markdown_table(title, columns, rows or ())
    return "\n".join(lines) + "\n"


def _option_lines(results: dict[str, Any]) -> Iterator[str]:
    options = results["options"]
    system = (
        "no system prompt" if options["system_prompt"] is None else f"the system prompt “{options['system_prompt']}”"
    )
    yield f"Adapter {options['adapter']}; judge {results['judge']}; under {system}."
    yield f"Fitted and chosen on {options['contrast_harmful']} and {options['contrast_benign']}; every figure is of "
    yield f"{options['held_out_harmful']} and {options['held_out_benign']}."
    if "module_groups" not in results["tuned"]:
        yield "There was no LoRA to take apart, or nothing was lost."
    yield ""


def _markdown_table(title: str, columns: dict[str, str], rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return []

    def format_cell(value: Any) -> str:
        return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    body = [[format_cell(row[key]) for key in columns] for row in rows]
    return ["", f"## {title}", "", *markdown_table(list(columns.values()), body)]
