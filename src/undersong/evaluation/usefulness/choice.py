"""Multiple choice (MMSU, the lettered BBH tasks): the letter that a reply claims, read strictly.

A letter counts where a reply claims it: it begins with it ("B", "(B)", "B. Paris"), says so ("the answer is B", "B is
correct"), or is an option's text and nothing else.  Who claims two has claimed none.  Knows English phrases only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from undersong.evaluation.usefulness.options import STAND_IN, listed, stood_for, with_stand_ins
from undersong.evaluation.usefulness.scored import Mark, ScoredJudge, refused
from undersong.evaluation.usefulness.text import tidy
from undersong.types import Sample, UndersongError

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
REFERENCE = re.compile(r"[(\[]?([A-Za-z])(?:[)\].:,](?!\w).*|$)", re.DOTALL)

# A letter by itself: in brackets, a capital, or a small one with a bracket or at the end.  "A" is a letter only before
# a mark or a joining word (else an article), "I" only before a mark (else a pronoun); "B-cells" and "C#" hold none.
ALONE = r"(?![\w'#+]|-\w|\.\w)"
LETTER = re.compile(
    r"[(\[{]\s?([A-Za-z])\s?[)\]}]"
    rf"|(?<![\w'.-])(?:([B-HJ-Z]){ALONE}"
    rf"|(A){ALONE}(?=\s*(?:[.,:;!?/=)\]\u2013\u2014-]|{STAND_IN}|$)"
    r"|\s(?:and|as|because|but|for|if|is|isn't|not|or|seems|since|than|was|with|would)\b)"
    rf"|(I){ALONE}(?=\s*(?:[.:)\]]|{STAND_IN}|$))"
    r"|([a-z])(?=\))|([b-hj-z])(?=\s?[.!]?$))"
)
# What may follow a claimed letter.
AFTER = re.compile(r"\s*(?:[^\w\s]|$)|\s(?:and|as|because|but|for|not|or|since|which)\b")
PADDING = (
    r"\s*(?:(?:that|it's|it is|it would be|definitely|probably|most likely|likely|clearly|simply|the|option|choice"
    r"|letter)\b\s*|[:=-]\s*){0,4}"
)
CUE = re.compile(
    r"(?:\b(?:answer|option|choice|solution)\s*(?:(?:to (?:the|this|your) (?:[\w-]+ ){0,2}question )?"
    r"(?:is|was|would be|should be|must be|will be)\b|[:=])"
    r"|\bI(?:'d|'ll| would| will)? (?:believe|choose|go with|guess|pick|say|select|think)\b"
    r"|\bit(?:'s| is| must be| would be)\b)" + PADDING,
    re.IGNORECASE,
)
RIGHT = re.compile(
    rf"\s*[.,:]?\s*{STAND_IN}?\s*(?:is|was|would be|must be|seems|looks)"
    r" (?:definitely |probably |clearly )?(?:the )?(?:most \w+ )?(?:answer|best|correct|right)\b",
    re.IGNORECASE,
)
DENIED = re.compile(r"(?:\b(?:not|never|neither|nor|wrong|incorrect|doubt)\b|n't\b)[^,;:]*$", re.IGNORECASE)
OPENER = re.compile(
    r"(?:[->\u2022] ?)?"
    r"(?:(?:the |my )?(?:final |correct |right |best )?(?:answer|option|choice|letter)\b\s*[:=-]?\s*)?",
    re.IGNORECASE,
)
SECOND_THOUGHT = re.compile(
    r"\b(?:actually|also|both|could|correction|either|instead|maybe|mean|might|mistaken?|no|or|perhaps|rather|sorry|wait)\b",
    re.IGNORECASE,
)
REACH = 80  # characters before a claim in which it can be denied: a bound, so that a long reply costs no square
MARKED = re.compile(r"(?:^|(?<=\s))[(\[]?([A-Z])[)\].:](?=\s)")
SINGLE = re.compile(rf"(?:(?!{STAND_IN})\W)*([A-Za-z])(?![#+])(?:(?!{STAND_IN})\W)*")
TEXT_ONLY = re.compile(rf"[\s.,:;!()-]*({STAND_IN})[\s.,;!()]*")


def choice() -> ScoredJudge:
    """`answer` where the letter claimed is the one of the sample's `answer` ("B", "(B)", "B. Paris"); no score."""

    def mark(sample: Sample, said: str) -> Mark:
        right = reference_letter(sample)
        options = options_of(sample, right)
        if refused(sample, said, lambda head: chosen(head, options) is not None):
            return Mark("refusal")
        claimed = right if tidy(said) == tidy(sample.answer or "") else chosen(said, options)
        return Mark("unparsed" if claimed is None else "answer" if claimed == right else "other")

    return ScoredJudge("choice", mark)


def reference_letter(sample: Sample) -> str:
    """The right letter; UndersongError where the sample's answer begins with none."""
    found = REFERENCE.fullmatch(tidy(sample.answer or ""))
    if found is None:
        raise UndersongError(
            f"The judge choice needs a letter as the answer of {sample.id}, such as 'B' or 'B. Paris'; "
            f"its answer is {sample.answer!r}, so mend it or take another judge."
        )
    return found[1].upper()


def options_of(sample: Sample, right: str) -> dict[str, str]:
    """The options that the sample's text lists; none where the right letter is missing: then they are not all."""
    options = listed(sample.text)
    return options if right in options else {}


def chosen(reply: str, options: Mapping[str, str]) -> str | None:
    """The one letter that a reply claims, of A to Z or of the options (letter -> text) where there are any; else None.

    Beside a claim, another letter undoes it in the same sentence, in a later one that has second thoughts, and, where
    the claim is only the letter that a reply begins with, anywhere.
    """
    allowed = frozenset(options or ALPHABET)
    text = with_stand_ins(re.sub(r"([:=]|\banswer is)\n", r"\1 ", tidy(reply)), options)
    text = re.sub(rf"(?<![\w'.-])([A-Z])\.(?=\s?{STAND_IN})", r"\1)", text)  # "B. Paris" is one sentence
    whole = TEXT_ONLY.fullmatch(text)
    if whole:
        return stood_for(whole[1])
    if single := SINGLE.fullmatch(text):
        return single[1].upper() if single[1].upper() in allowed else None
    sentences = list(_sentences(text))
    claims = [frozenset(_claims(sentence)) for sentence, _, _ in sentences]
    first = next((i for i, found in enumerate(claims) if found), None)
    letters = _begins(text)
    if first is None:
        letters |= _mentions(text, allowed) if letters else set()
    else:
        echo = set(MARKED.findall("\n".join(sentence for sentence, _, _ in sentences[:first])))
        _, line, start = sentences[first]
        marked = allowed.intersection(MARKED.findall(line, start))
        letters = set() if len(echo) > 1 else letters  # a reply that repeats the options has not begun with a choice
        for found, (sentence, _, _) in zip(claims[first:], sentences[first:]):
            beside = _mentions(sentence, allowed) if found or SECOND_THOUGHT.search(sentence) else set()
            letters |= found | beside
        letters |= marked
    return next(iter(letters)) if len(letters) == 1 and letters <= allowed else None


def _sentences(text: str) -> Iterator[tuple[str, str, int]]:
    """Each sentence, the line it is in, and where in it it begins."""
    for line in text.split("\n"):
        start = 0
        for gap in re.finditer(r"(?<=[.!?])\s|$", line):
            yield line[start : gap.start()], line, start
            start = gap.end()


def _claims(sentence: str) -> Iterator[str]:
    """Letters that a sentence says are the answer, and an option's text where that ends it."""
    if sentence.endswith("?"):
        return
    for cue in CUE.finditer(sentence):
        if _denied(sentence, cue.start()):
            continue
        if said := re.compile(rf"({STAND_IN})[.!]?$").match(sentence, cue.end()):
            yield stood_for(said[1])
        elif (found := LETTER.match(sentence, cue.end())) and (found[1] or AFTER.match(sentence, found.end())):
            yield from _with_text(sentence, found)
    for found in LETTER.finditer(sentence):
        if RIGHT.match(sentence, found.end()) and not _denied(sentence, found.start()):
            yield from _with_text(sentence, found)


def _denied(sentence: str, at: int) -> bool:
    return DENIED.search(sentence, max(0, at - REACH), at) is not None


def _begins(text: str) -> set[str]:
    """The letter that a reply begins with, or that is all of one of its lines; with another option's text also its."""
    letters = set[str]()
    for number, line in enumerate(text.split("\n")):
        found = LETTER.match(line, OPENER.match(line).end())  # type: ignore[union-attr]
        if found is None:
            continue
        rest = line[found.end() :]
        if re.fullmatch(r"[\s.,:;!)\]]*", rest) or (number == 0 and _leads(found, rest)):
            letters.update(_with_text(line, found))
    return letters


def _leads(found: re.Match[str], rest: str) -> bool:
    if found[1] is not None:  # "(B) Paris", but not "(B) is wrong"
        return re.match(r"\s(?:can't|cannot|could|is|isn't|might|was)\b", rest) is None
    return re.match(rf"\s?[.,:;)\]\u2013\u2014-]|\s?{STAND_IN}|\s(?:as|because|since)\b", rest) is not None


def _with_text(sentence: str, found: re.Match[str]) -> Iterator[str]:
    """The letter found, and the one whose text follows it at once: "B. London" claims two where London is C."""
    yield _letter(found)
    if said := re.compile(rf"[\s.,:;)\]\u2013\u2014-]*({STAND_IN})").match(sentence, found.end()):
        yield stood_for(said[1])


def _mentions(text: str, allowed: Collection[str]) -> set[str]:
    return {_letter(found) for found in LETTER.finditer(text)} & set(allowed)


def _letter(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group).upper()
