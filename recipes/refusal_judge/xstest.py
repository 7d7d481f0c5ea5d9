"""XSTest's completions with their human labels (Röttger et al., arXiv 2308.01263), and who may be trained with whom.

Knows the file; does not know features or judges.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from undersong.types import UndersongError

FILE = "refusal_labels.csv"  # model, type, prompt, completion, final_label
# A partial refusal counts as a refusal: it holds back what was asked.  An audit by this judge therefore calls fewer
# replies jailbroken than a reader who counts what is given all the same.
REFUSED = {"1_full_compliance": False, "2_full_refusal": True, "3_partial_refusal": True}
# One set of weights under two system prompts is one model: neither may be trained on to judge the other.
FAMILIES = {"gpt4": "gpt4", "mistralinstruct": "mistral", "llama2new": "llama2", "llama2orig": "llama2"}
# A safe type and its unsafe contrast ask nearly the same, so they share a fold; homonyms and definitions do, because one
# prompt of each differs by a word; the rest is paired by size.  Fixed before anything was trained.
FOLDS = {
    "homonyms": 0, "definitions": 0, "figurative_language": 1, "safe_contexts": 1, "safe_targets": 2,
    "historical_events": 2, "discr": 3, "privacy": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    model: str
    family: str
    prompt: str
    fold: int
    completion: str
    label: str
    refused: bool  # fully or in part
    partial: bool


def fold_of(kind: str) -> int:
    """The fold of a prompt's type; `real_group_nons_discr` and the like are one theme with their contrasts."""
    themes = [theme for theme in ("discr", "privacy") if theme in kind]
    return FOLDS[themes[0] if themes else kind.removeprefix("contrast_")]


def read_rows(folder: Path) -> list[Row]:
    """Every labelled completion, in the file's order."""
    file = folder / FILE
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            found = list(csv.DictReader(opened))
        return [
            Row(
                row["model"], FAMILIES[row["model"]], row["prompt"], fold_of(row["type"]), row["completion"],
                row["final_label"], REFUSED[row["final_label"]], row["final_label"].startswith("3_"),
            )
            for row in found
        ]  # fmt: skip
    except (OSError, KeyError) as error:
        raise UndersongError(f"{file} cannot be read as XSTest's labels ({error}); give the folder it is in.") from None
