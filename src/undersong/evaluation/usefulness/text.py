"""Text made comparable.  Each step is named, because a rate depends on it; does not know judges."""

from __future__ import annotations

import re
import unicodedata

EMPHASIS = re.compile(r"[*`_\"\u201c\u201d\u201e\u00ab\u00bb]|(?m:^[ \t]*#+(?=\s))")  # Markdown and double quotes
INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\ue000-\uf8ff]")  # zero width, and what `options` stands in with
# Superscript digits, which NFKC would lower: five squared is not 52.
SUPERSCRIPT_DIGIT = re.compile("([\u00b2\u00b3\u00b9\u2070\u2074-\u2079])")


def normalize_answer(text: str) -> str:
    """Lower case without punctuation and symbols, which leave no gap, and with single spaces, as SQuAD has it.

    On ASCII this is SQuAD's to the letter (so "3.5" is "35"); beyond, compatible forms are one (NFKC), and typographic
    quotes, dashes and symbols go as plain ones do.
    """
    lowercase = INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).lower()
    return " ".join("".join(char for char in lowercase if unicodedata.category(char)[0] not in "PS").split())


def normalize_reply(text: str) -> str:
    """A reply as its form is parsed: plain quotes and minus, no emphasis, single spaces; case and line ends stay."""
    text = INVISIBLE.sub("", unicodedata.normalize("NFKC", SUPERSCRIPT_DIGIT.sub(r"^\1", text)))
    text = text.replace("\u2019", "'").replace("\u2212", "-")
    text = re.sub(r"'([A-Za-z])'", r" \1 ", EMPHASIS.sub(" ", text))
    return "\n".join(line for line in (" ".join(line.split()) for line in text.splitlines()) if line)
