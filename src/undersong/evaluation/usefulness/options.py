"""The options that a question lists, and where a reply says one of them in full.  Does not know which is right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from undersong.evaluation.usefulness.text import tidy

STYLES = (r"\(([A-Z])\)", r"([A-Z])\)", r"([A-Z])\.", r"([A-Z]):")  # (A), A), A. and A:
FIRST = 0xE000  # Unicode's private use, which `tidy` has taken out of every text
STAND_IN = f"[{chr(FIRST)}-{chr(FIRST + 25)}]"


def listed(question: str | None) -> dict[str, str]:
    """letter -> text of the options A, B, … in a question, on lines of their own or in a row; empty: none are listed.

    Only capitals in one style count, consecutive from A, at least two; in a row the longest such sequence is taken.
    """
    text = tidy(question or "")
    for place, flags in ((r"^", re.MULTILINE), (r"(?:^|(?<=\s))", 0)):
        runs = [_run(list(re.finditer(rf"{place}{style}(?:\s+|$)", text, flags))) for style in STYLES]
        best = max(runs, key=len)
        if len(best) > 1:
            return {mark[1]: said.rstrip(" .;,") for mark, said in zip(best, _between(text, best))}
    return {}


def _run(marks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """The longest sequence A, B, C, … among the marks, the last one of equals; letters out of turn are passed over."""
    best, run = list[re.Match[str]](), list[re.Match[str]]()
    for mark in marks:
        if mark[1] == chr(ord("A") + len(run)):
            run = [*run, mark]
        elif mark[1] == "A":
            run = [mark]
        best = run if len(run) >= len(best) else best
    return best


def _between(text: str, marks: Sequence[re.Match[str]]) -> Iterator[str]:
    """What stands after each mark: until the next one, after the last until the line ends."""
    for mark, following in pairwise(marks):
        yield " ".join(text[mark.end() : following.start()].split())
    yield text[marks[-1].end() :].split("\n", 1)[0]


def with_stand_ins(reply: str, options: Mapping[str, str]) -> str:
    """A tidied reply in which each option said in full is one character, so that no letter in it is taken for a choice.

    Longer texts come first ("Paris, Texas" before "Paris").  Texts of two options, and single letters, stay.
    """
    folded = [said.lower() for said in options.values()]
    distinct = [
        (letter, said) for letter, said in options.items() if len(said) > 1 or said.isdigit()
        if folded.count(said.lower()) == 1
    ]  # fmt: skip
    for letter, said in sorted(distinct, key=lambda option: -len(option[1])):
        words = r"\s+".join(map(re.escape, said.split()))
        found = re.compile(rf"(?<![\w.+\-$]){words}(?!\w|[.,]\d|-\w)", re.IGNORECASE)
        reply = found.sub(chr(FIRST + ord(letter) - ord("A")), reply)
    return reply


def stood_for(stand_in: str) -> str:
    """The letter of a stand-in."""
    return chr(ord(stand_in) - FIRST + ord("A"))
