"""The options that a question lists, and where a reply says one of them in full.  Does not know which is right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from undersong.evaluation.usefulness.text import normalize_reply

OPTION_STYLES = (r"\(([A-Z])\)", r"([A-Z])\)", r"([A-Z])\.", r"([A-Z]):")  # (A), A), A. and A:
FIRST_PLACEHOLDER = 0xE000  # Unicode's private use, which `tidy` has taken out of every text
OPTION_PLACEHOLDER = f"[{chr(FIRST_PLACEHOLDER)}-{chr(FIRST_PLACEHOLDER + 25)}]"


def parse_options(question: str | None) -> dict[str, str]:
    """letter -> text of the options A, B, … in a question, on lines of their own or in a row; empty: none are listed.

    Only capitals in one style count, consecutive from A, at least two; in a row the longest such sequence is taken.
    """
    text = normalize_reply(question or "")
    for position, flags in ((r"^", re.MULTILINE), (r"(?:^|(?<=\s))", 0)):
        sequences = [
            _longest_sequence(list(re.finditer(rf"{position}{style}(?:\s+|$)", text, flags))) for style in OPTION_STYLES
        ]
        longest = max(sequences, key=len)
        if len(longest) > 1:
            return {
                mark[1]: option_text.rstrip(" .;,") for mark, option_text in zip(longest, _option_texts(text, longest))
            }
    return {}


def _longest_sequence(marks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """The longest sequence A, B, C, … among the marks, the last one of equals; letters out of turn are passed over."""
    longest, sequence = list[re.Match[str]](), list[re.Match[str]]()
    for mark in marks:
        if mark[1] == chr(ord("A") + len(sequence)):
            sequence = [*sequence, mark]
        elif mark[1] == "A":
            sequence = [mark]
        longest = sequence if len(sequence) >= len(longest) else longest
    return longest


def _option_texts(text: str, marks: Sequence[re.Match[str]]) -> Iterator[str]:
    """What stands after each mark: until the next one, after the last until the line ends."""
    for mark, next_mark in pairwise(marks):
        yield " ".join(text[mark.end() : next_mark.start()].split())
    yield text[marks[-1].end() :].split("\n", 1)[0]


def mask_options(reply: str, options: Mapping[str, str]) -> str:
    """A tidied reply in which each option said in full is one character, so that no letter in it is taken for a choice.

    Longer texts come first ("Paris, Texas" before "Paris").  Texts of two options, and single letters, stay.
    """
    lowercase_texts = [option_text.lower() for option_text in options.values()]
    unique_options = [
        (letter, option_text) for letter, option_text in options.items() if len(option_text) > 1 or option_text.isdigit()
        if lowercase_texts.count(option_text.lower()) == 1
    ]  # fmt: skip
    for letter, option_text in sorted(unique_options, key=lambda option: -len(option[1])):
        words_pattern = r"\s+".join(map(re.escape, option_text.split()))
        pattern = re.compile(rf"(?<![\w.+\-$]){words_pattern}(?!\w|[.,]\d|-\w)", re.IGNORECASE)
        reply = pattern.sub(chr(FIRST_PLACEHOLDER + ord(letter) - ord("A")), reply)
    return reply


def masked_letter(placeholder: str) -> str:
    """The letter of a stand-in."""
    return chr(ord(placeholder) - FIRST_PLACEHOLDER + ord("A"))
