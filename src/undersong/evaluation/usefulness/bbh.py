"""BIG-Bench Hard: exact match in the form that the task's answer has (Suzgun et al., arXiv 2210.09261).

The published prompt asks to start with "The answer is:"; what follows the last such phrase is taken, as the official
scorer takes it, and a final full stop left out.  Beyond it, case does not count, nor do commas in a list of words,
nor how a number is written ("24.0", "1,000", or "eight" alone); what has not the form of the answer is `unparsed`.
"""

from __future__ import annotations

import re
from decimal import Decimal

from undersong.evaluation.usefulness.choice import chosen, options_of
from undersong.evaluation.usefulness.scored import Mark, ScoredJudge, refused
from undersong.evaluation.usefulness.text import tidy
from undersong.types import Sample, UndersongError

PHRASE = re.compile(r"\banswer(?:\s+is\b\s*:?|\s*:)\s*", re.IGNORECASE)
SHORT = 200  # characters: a longer first line is no answer; the longest one in BBH has 182
PAIRS = (("true", "false"), ("yes", "no"), ("valid", "invalid"))
LETTERED = re.compile(r"\([A-Za-z]\)|[A-Z]")
BRACKETS = re.compile(r"([()\[\]{}<>\s]*[()\[\]{}<>])\s*(?:[.,;]|$)")
EDGE = r"\w.,/^\u2013\u2014"  # what makes digits a part of something else: 12/24, 5^2, a dash that may be a minus
NUMBER = re.compile(rf"(?<![{EDGE}])(?<!- )-?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?(?![\w/%^]|[.,]\d)")
SPELLED = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
BULLET = re.compile(r"(?:[-\u2022]|\d+[.)]) ?")
DENIED = re.compile(r"\b(?:not|never|neither|nor)\b|n't\b", re.IGNORECASE)


def bbh() -> ScoredJudge:
    """`answer` where the reply's answer is the sample's `answer`, `other` where it is another one; no score."""

    def mark(sample: Sample, said: str) -> Mark:
        target = (sample.answer or "").strip()
        if not target:
            raise UndersongError(f"The judge bbh needs the answer of {sample.id}; add it or take another judge.")
        if said.strip() == target:
            return Mark("answer")
        if refused(sample, said, lambda head: parsed(head, target, sample) is not None):
            return Mark("refusal")
        given = parsed(said, target, sample)
        right = parsed(target, target, sample)
        return Mark("unparsed" if given is None else "answer" if given == right else "other")

    return ScoredJudge("bbh", mark)


def parsed(reply: str, target: str, sample: Sample) -> str | None:
    """The answer in a reply, made comparable, in the form that `target` has; None where it has none or several."""
    said = _after_phrase(reply)
    if LETTERED.fullmatch(target):
        options = options_of(sample, target.strip("()").upper())
        return chosen(reply if said is None else f"The answer is {said}", options)
    text = tidy(reply) if said is None else said
    line = text.split("\n", 1)[0]
    if not line or len(line) > max(SHORT, len(target)):
        return None
    if pair := next((pair for pair in PAIRS if target.lower() in pair), None):
        return _one_of(pair, text, line)
    if NUMBER.fullmatch(target):
        return _number(line)
    if BRACKETS.fullmatch(target):
        found = BRACKETS.match(line)
        return "".join(found[1].split()) if found else None
    return _words(text, line)


def _after_phrase(reply: str) -> str | None:
    """What a tidied reply says after its last "the answer is" or "answer:"; None where it does not say that.

    A denied phrase ("I don't think the answer is") leaves nothing, so that what follows it is not taken for an answer.
    """
    text = tidy(reply)
    found = list(PHRASE.finditer(text))
    if not found:
        return None
    before = re.split(r"[.,;:!?\n]", text[max(0, found[-1].start() - SHORT) : found[-1].start()])[-1]
    return "" if DENIED.search(before) else text[found[-1].end() :]


def _one_of(pair: tuple[str, str], text: str, line: str) -> str | None:
    """The one word of a pair in the first line, unless a later sentence begins with the other one.

    "yes" and "no" must begin the line, because "there is no way to tell" answers nothing; the others may stand in a
    sentence ("the argument is valid") that is not denied.
    """
    either = re.compile(rf"\b(?:{'|'.join(pair)})\b", re.IGNORECASE)
    found = [match[0].lower() for match in either.finditer(line)]
    later = [match[1].lower() for match in re.finditer(rf"(?:[.!?]\s|\n)\W*({'|'.join(pair)})\b", text, re.IGNORECASE)]
    if len({*found, *later}) != 1 or not found:
        return None
    if pair[0] == "yes":
        return found[0] if re.match(rf"\W*{found[0]}\b", line, re.IGNORECASE) else None
    begins = re.match(rf"\W*{found[0]}\b", line, re.IGNORECASE)
    return found[0] if begins or not DENIED.search(line) else None


def _number(line: str) -> str | None:
    """The only number of a line that denies nothing, or a number word that is all of it."""
    if (word := line.strip(" .!").lower()) in SPELLED:
        return str(SPELLED.index(word))
    values = {Decimal(found.replace(",", "")) for found in NUMBER.findall(line)}
    if len(values) != 1 or DENIED.search(line):
        return None
    value = values.pop()
    return str(int(value)) if value == int(value) else f"{value:f}".rstrip("0")


def _words(text: str, line: str) -> str | None:
    """The words of the first line, or of all where each has a line of its own; "Sorted, they are:" is no answer."""
    items = [BULLET.sub("", item, count=1) for item in text.split("\n")]
    said = " ".join(items) if len(items) > 1 and all(" " not in item for item in items) else line
    if said.endswith(":"):
        return None
    return " ".join(said.removesuffix(".").lower().replace(",", " ").split()) or None
