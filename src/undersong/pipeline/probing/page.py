"""A probe as a page of Markdown: its findings, what was asked, and every table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from undersong.report.markdown import markdown_table

# Title, where it stands in the tuned model's results, and key -> column of each table.
GAP_COLUMNS = {
    "place": "layer", "gap_before": "before", "gap_after": "after", "low_after": "low", "high_after": "high",
    "harmful_before": "harmful before", "harmful_after": "after", "harmless_before": "harmless before",
    "harmless_after": "after", "cosine_to_refit": "cosine to re-fitted",
}  # fmt: skip
DRIFT_COLUMNS = {"place": "layer", "relative": "relative", "low": "low", "high": "high", "cka": "CKA"}
PROBE_COLUMNS = {
    "place": "layer", "accuracy_before": "before", "low_before": "low", "high_before": "high",
    "accuracy_after": "after", "low_after": "low", "high_after": "high",
}  # fmt: skip
NESTED_COLUMNS = {
    "place": "layer", "accuracy_before": "before", "p_before": "p (Holm)", "accuracy_after": "after",
    "p_after": "p (Holm)",
}  # fmt: skip
RECOVERY_COLUMNS = {"share": "share", "low": "low", "high": "high"}
CANDIDATE_COLUMNS = {
    "place": "layer", "bypass": "log odds of refusing harmful without it", "induce": "harmless with it",
    "divergence": "nats that harmless prompts move without it",
}  # fmt: skip


def probe_markdown(results: dict[str, Any]) -> str:
    """The findings first."""
    base, tuned = results["base"], results["tuned"]
    recognition = tuned.get("recognition", {})
    lines = [
        f"# Probe of {results['model']}, {results['modality']}",
        "",
        *(f"- {finding}" for finding in results["findings"]),
    ]
    lines += ["", *_option_lines(results), *(f"> {note}" for note in results["notes"])]
    for title, columns, rows in (
        ("Gap along the base’s direction, by layer (0: the decoder’s input)", GAP_COLUMNS, tuned["gaps"]),
        ("Drift of the states", DRIFT_COLUMNS, tuned["drift"]),
        ("Harmful or harmless? Balanced accuracy of a probe on held-out prompts", PROBE_COLUMNS,
         recognition.get("by_place")),
        ("The same by nested cross-validation in the contrast sets", NESTED_COLUMNS, recognition.get("nested")),
        ("What the base’s state gives back", {"place": "layer", **RECOVERY_COLUMNS}, tuned.get("patching")),
        ("What the adapter without a part gives back", {"part": "part", **RECOVERY_COLUMNS}, tuned.get("parts")),
        ("Where the direction was tried", CANDIDATE_COLUMNS, base.get("candidates")),
    ):  # fmt: skip
        lines += _markdown_table(title, columns, rows or ())
    return "\n".join(lines) + "\n"


def _option_lines(results: dict[str, Any]) -> Iterator[str]:
    options = results["asked"]
    system = "no system text" if options["system"] is None else f"the system text “{options['system']}”"
    yield f"Adapter {options['adapter']}; judge {results['judge']}; under {system}."
    yield f"Fitted and chosen on {options['harmful']} and {options['harmless']}; every figure is of "
    yield f"{options['test_harmful']} and {options['test_harmless']}."
    if "parts" not in results["tuned"]:
        yield "There was no LoRA to take apart, or nothing was lost."
    yield ""


def _markdown_table(title: str, columns: dict[str, str], rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return []

    def format_cell(value: Any) -> str:
        return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    body = [[format_cell(row[key]) for key in columns] for row in rows]
    return ["", f"## {title}", "", *markdown_table(list(columns.values()), body)]
