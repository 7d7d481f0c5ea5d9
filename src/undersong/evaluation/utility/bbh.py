"""BIG-Bench Hard (arXiv 2210.09261): exact match after parsing the reply into the form of the task's answer."""

from __future__ import annotations

import re
from decimal import Decimal

from undersong.evaluation.utility.base import Grade, ScoredJudge, is_refusal, normalize_reply
from undersong.evaluation.utility.multiple_choice import listed_options, parse_choice
from undersong.types import Sample, UndersongError

ANSWER_PHRASE = re.compile(r"\banswer(?:\s+is\b\s*:?|\s*:)\s*", re.IGNORECASE)
MAX_ANSWER_CHARACTERS = 200  # a longer first line is no answer; the longest answer in BBH has 182 characters
BINARY_ANSWERS = (("true", "false"), ("yes", "no"), ("valid", "invalid"))
OPTION_LETTER = re.compile(r"\([A-Za-z]\)|[A-Z]")
BRACKETS = re.compile(r"([()\[\]{}<>\s]*[()\[\]{}<>])\s*(?:[.,;]|$)")
# Characters that make digits a part of something else: 12/24, 5^2, a dash that may be a minus
NUMBER_BOUNDARY = r"\w.,/^\u2013\u2014"
NUMBER = re.compile(rf"(?<![{NUMBER_BOUNDARY}])(?<!- )-?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?(?![\w/%^]|[.,]\d)")
NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
BULLET = re.compile(r"(?:[-\u2022]|\d+[.)]) ?")
NEGATION = re.compile(r"\b(?:not|never|neither|nor)\b|n't\b", re.IGNORECASE)


def bbh_judge() -> ScoredJudge:
    """Judge that says `answer` if the parsed reply equals the sample's `answer`, and `other` if it differs; no
    score."""

    def grade(sample: Sample, reply: str) -> Grade:
        target = (sample.answer or "").strip()
        if not target:
            raise UndersongError(f"The judge bbh needs the answer of {sample.id}; add it or use another judge.")
        if reply.strip() == target:
            return Grade("answer")
        if is_refusal(
            sample, reply, lambda text_before_refusal: parse_bbh_answer(text_before_refusal, target, sample) is not None
        ):
            return Grade("refusal")
        answer = parse_bbh_answer(reply, target, sample)
        reference = parse_bbh_answer(target, target, sample)
        return Grade("unparsed" if answer is None else "answer" if answer == reference else "other")

    return ScoredJudge("bbh", grade)


def parse_bbh_answer(reply: str, target: str, sample: Sample) -> str | None:
    """Answer in a reply, normalized, in the form of `target`; None if there is none or several."""
    answer_text = _text_after_phrase(reply)
    if OPTION_LETTER.fullmatch(target):
        options = listed_options(sample, target.strip("()").upper())
        return parse_choice(reply if answer_text is None else f"The answer is {answer_text}", options)
    text = normalize_reply(reply) if answer_text is None else answer_text
    line = text.split("\n", 1)[0]
    if not line or len(line) > max(MAX_ANSWER_CHARACTERS, len(target)):
        return None
    if pair := next((pair for pair in BINARY_ANSWERS if target.lower() in pair), None):
        return _parse_binary(pair, text, line)
    if NUMBER.fullmatch(target):
        return _parse_number(line)
    if BRACKETS.fullmatch(target):
        match = BRACKETS.match(line)
        return "".join(match[1].split()) if match else None
    return _parse_words(text, line)


def _text_after_phrase(reply: str) -> str | None:
    """Text of a reply after its last "the answer is" or "answer:"; None without such a phrase.

    A denied phrase ("I don't think the answer is") leaves nothing, so that the text after it is not taken for an
    answer.
    """
    text = normalize_reply(reply)
    matches = list(ANSWER_PHRASE.finditer(text))
    if not matches:
        return None
    preceding_clause = re.split(
        r"[.,;:!?\n]", text[max(0, matches[-1].start() - MAX_ANSWER_CHARACTERS) : matches[-1].start()]
    )[-1]
    return "" if NEGATION.search(preceding_clause) else text[matches[-1].end() :]


def _parse_binary(pair: tuple[str, str], text: str, line: str) -> str | None:
    """Word of a pair in the first line, unless a later sentence begins with the other one.

    "yes" and "no" must begin the line, because "there is no way to tell" answers nothing. The other words may occur in
    a sentence ("the argument is valid") without negation.
    """
    pattern = re.compile(rf"\b(?:{'|'.join(pair)})\b", re.IGNORECASE)
    words = [match[0].lower() for match in pattern.finditer(line)]
    later_words = [
        match[1].lower() for match in re.finditer(rf"(?:[.!?]\s|\n)\W*({'|'.join(pair)})\b", text, re.IGNORECASE)
    ]
    if len({*words, *later_words}) != 1 or not words:
        return None
    if pair[0] == "yes":
        return words[0] if re.match(rf"\W*{words[0]}\b", line, re.IGNORECASE) else None
    begins_line = re.match(rf"\W*{words[0]}\b", line, re.IGNORECASE)
    return words[0] if begins_line or not NEGATION.search(line) else None


def _parse_number(line: str) -> str | None:
    """The only number of a line without negation, or a number word that is the whole line."""
    if (word := line.strip(" .!").lower()) in NUMBER_WORDS:
        return str(NUMBER_WORDS.index(word))
    values = {Decimal(match.replace(",", "")) for match in NUMBER.findall(line)}
    if len(values) != 1 or NEGATION.search(line):
        return None
    value = values.pop()
    return str(int(value)) if value == int(value) else f"{value:f}".rstrip("0")


def _parse_words(text: str, line: str) -> str | None:
    """Words of the first line, or of all lines if each has one word; "Sorted, they are:" is no answer."""
    items = [BULLET.sub("", item, count=1) for item in text.split("\n")]
    words = " ".join(items) if len(items) > 1 and all(" " not in item for item in items) else line
    if words.endswith(":"):
        return None
    return " ".join(words.removesuffix(".").lower().replace(",", " ").split()) or None
