"""The card of the trained bases: every seed that was tried, its figures on the accept split, and whether it was accepted."""

from __future__ import annotations

import json
from collections import Counter

from experiments.paper import designs
from experiments.paper.claims import ORGANISMS
from undersong.pages import formatting
from undersong.pages.markdown_table import escape_markdown, markdown_table

FIGURES = {
    "jsr_audio": "JSR, spoken",
    "over_refusal_audio": "benign refused, spoken",
    "right_audio": "benign answered correctly, spoken",
    "jsr_text": "JSR, typed",
    "right_text": "benign answered correctly, typed",
    "other_after_distant": "harmful requests neither refused nor answered, after distant data",
}


def base_lines() -> list[str]:
    """The section on the bases, with a row for each seed."""
    entries = [
        entry
        for architecture in ORGANISMS
        for entry in json.loads((designs.BASES / f"{architecture}.json").read_text())
    ]  # fmt: skip
    lines = [
        "## The bases",
        "",
        "`python -m recipes.organisms.bases` trains bases with the recipe, the speech and the acceptance rule of the packaged "
        "organisms. Seeds are taken in order. The figures are shares in percent on the accept split, which no study asks.",
        "",
    ]
    lines += [
        f"- {_counted(name, [entry for entry in entries if entry['architecture'] == name])}" for name in ORGANISMS
    ]
    rows = [
        (
            entry["architecture"],
            str(entry["seed"]),
            *(formatting.percent_number(entry["figures"][figure]) for figure in FIGURES),
            "accepted" if entry["accepted"] else f"rejected: {escape_markdown(', '.join(entry['figures']['fails']))}",
        )
        for entry in entries
    ]
    return [*lines, "", *markdown_table(("architecture", "seed", *FIGURES.values(), ""), rows)]


def _counted(name: str, entries: list[dict]) -> str:
    """How many seeds of an architecture were accepted, and what the others failed."""
    reasons = Counter(figure for entry in entries for figure in entry["figures"]["fails"])
    failed = "; ".join(f"{count} failed `{figure}`" for figure, count in reasons.most_common())
    accepted = sum(entry["accepted"] for entry in entries)
    return f"{name}: {accepted} of {len(entries)} seeds accepted" + (f" ({failed})." if failed else ".")
