"""Multiple choice (MMSU, lettered BBH tasks): parse the options of a question and the letter that a reply claims.
English phrases only."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from undersong.evaluation.utility.base import Grade, ScoredJudge, is_refusal, normalize_reply
from undersong.types import Sample, UndersongError

OPTION_STYLES = (r"\(([A-Z])\)", r"([A-Z])\)", r"([A-Z])\.", r"([A-Z]):")  # (A), A), A. and A:
FIRST_PLACEHOLDER = 0xE000  # Unicode's private use area, which `normalize_reply` removes from every text
OPTION_PLACEHOLDER = f"[{chr(FIRST_PLACEHOLDER)}-{chr(FIRST_PLACEHOLDER + 25)}]"


def parse_options(question: str | None) -> dict[str, str]:
    """Letter and text of the options A, B, … in a question, on separate lines or in a row; empty if none are listed.

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
    """Longest sequence A, B, C, … among the marks, the last one if equal; letters out of turn are skipped."""
    longest, sequence = list[re.Match[str]](), list[re.Match[str]]()
    for mark in marks:
        if mark[1] == chr(ord("A") + len(sequence)):
            sequence = [*sequence, mark]
        elif mark[1] == "A":
            sequence = [mark]
        longest = sequence if len(sequence) >= len(longest) else longest
    return longest


def _option_texts(text: str, marks: Sequence[re.Match[str]]) -> Iterator[str]:
    """Yield the text after each mark, up to the next mark, or to the end of the line after the last."""
    for mark, next_mark in pairwise(marks):
        yield " ".join(text[mark.end() : next_mark.start()].split())
    yield text[marks[-1].end() :].split("\n", 1)[0]


def mask_options(reply: str, options: Mapping[str, str]) -> str:
    """Replace each option's full text in a normalized reply by one placeholder, so that no letter in it is taken for a
    choice.

    Longer texts come first ("Paris, Texas" before "Paris"). Texts of two options, and single letters, are kept.
    """
    lowercase_texts = [option_text.lower() for option_text in options.values()]
    unique_options = [
        (letter, option_text)
        for letter, option_text in options.items()
        if len(option_text) > 1 or option_text.isdigit()
        if lowercase_texts.count(option_text.lower()) == 1
    ]
    for letter, option_text in sorted(unique_options, key=lambda option: -len(option[1])):
        words_pattern = r"\s+".join(map(re.escape, option_text.split()))
        pattern = re.compile(rf"(?<![\w.+\-$]){words_pattern}(?!\w|[.,]\d|-\w)", re.IGNORECASE)
        reply = pattern.sub(chr(FIRST_PLACEHOLDER + ord(letter) - ord("A")), reply)
    return reply


def masked_letter(placeholder: str) -> str:
    """Letter of a placeholder."""
    return chr(ord(placeholder) - FIRST_PLACEHOLDER + ord("A"))


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
REFERENCE_LETTER = re.compile(r"[(\[]?([A-Za-z])(?:[)\].:,](?!\w).*|$)", re.DOTALL)

# A letter by itself: in brackets, a capital, or a small one with a bracket or at the end. "A" is a letter only before a
# mark or a joining word (else an article), "I" only before a mark (else a pronoun). "B-cells" and "C#" contain none.
LETTER_BOUNDARY = r"(?![\w'#+]|-\w|\.\w)"
LETTER = re.compile(
    r"[(\[{]\s?([A-Za-z])\s?[)\]}]"
    rf"|(?<![\w'.-])(?:([B-HJ-Z]){LETTER_BOUNDARY}"
    rf"|(A){LETTER_BOUNDARY}(?=\s*(?:[.,:;!?/=)\]\u2013\u2014-]|{OPTION_PLACEHOLDER}|$)"
    r"|\s(?:and|as|because|but|for|if|is|isn't|not|or|seems|since|than|was|with|would)\b)"
    rf"|(I){LETTER_BOUNDARY}(?=\s*(?:[.:)\]]|{OPTION_PLACEHOLDER}|$))"
    r"|([a-z])(?=\))|([b-hj-z])(?=\s?[.!]?$))"
)
# Text that may follow a claimed letter.
CLAIM_END = re.compile(r"\s*(?:[^\w\s]|$)|\s(?:and|as|because|but|for|not|or|since|which)\b")
CUE_PADDING = (
    r"\s*(?:(?:that|it's|it is|it would be|definitely|probably|most likely|likely|clearly|simply|the|option|choice"
    r"|letter)\b\s*|[:=-]\s*){0,4}"
)
CLAIM_CUE = re.compile(
    r"(?:\b(?:answer|option|choice|solution)\s*(?:(?:to (?:the|this|your) (?:[\w-]+ ){0,2}question )?"
    r"(?:is|was|would be|should be|must be|will be)\b|[:=])"
    r"|\bI(?:'d|'ll| would| will)? (?:believe|choose|go with|guess|pick|say|select|think)\b"
    r"|\bit(?:'s| is| must be| would be)\b)" + CUE_PADDING,
    re.IGNORECASE,
)
CORRECTNESS_CLAIM = re.compile(
    rf"\s*[.,:]?\s*{OPTION_PLACEHOLDER}?\s*(?:is|was|would be|must be|seems|looks)"
    r" (?:definitely |probably |clearly )?(?:the )?(?:most \w+ )?(?:answer|best|correct|right)\b",
    re.IGNORECASE,
)
NEGATION = re.compile(r"(?:\b(?:not|never|neither|nor|wrong|incorrect|doubt)\b|n't\b)[^,;:]*$", re.IGNORECASE)
REPLY_OPENER = re.compile(
    r"(?:[->\u2022] ?)?"
    r"(?:(?:the |my )?(?:final |correct |right |best )?(?:answer|option|choice|letter)\b\s*[:=-]?\s*)?",
    re.IGNORECASE,
)
SECOND_THOUGHT = re.compile(
    r"\b(?:actually|also|both|could|correction|either|instead|maybe|mean|might|mistaken?|no|or|perhaps|rather|sorry|wait)\b",
    re.IGNORECASE,
)
# Characters before a claim that are searched for a negation; bounded, so that long replies do not cost quadratic time
MAX_NEGATION_DISTANCE = 80
MARKED_LETTER = re.compile(r"(?:^|(?<=\s))[(\[]?([A-Z])[)\].:](?=\s)")
SINGLE_LETTER = re.compile(rf"(?:(?!{OPTION_PLACEHOLDER})\W)*([A-Za-z])(?![#+])(?:(?!{OPTION_PLACEHOLDER})\W)*")
OPTION_TEXT_ONLY = re.compile(rf"[\s.,:;!()-]*({OPTION_PLACEHOLDER})[\s.,;!()]*")


def choice_judge() -> ScoredJudge:
    """Judge that says `answer` if the claimed letter is that of the sample's `answer` ("B", "(B)", "B. Paris"); no
    score."""

    def grade(sample: Sample, reply: str) -> Grade:
        reference = reference_letter(sample)
        options = listed_options(sample, reference)
        if is_refusal(
            sample, reply, lambda text_before_refusal: parse_choice(text_before_refusal, options) is not None
        ):
            return Grade("refusal")
        claimed_letter = (
            reference
            if normalize_reply(reply) == normalize_reply(sample.answer or "")
            else parse_choice(reply, options)
        )
        return Grade("unparsed" if claimed_letter is None else "answer" if claimed_letter == reference else "other")

    return ScoredJudge("choice", grade)


def reference_letter(sample: Sample) -> str:
    """Correct letter of a sample.

    Raises:
        UndersongError: The sample's answer does not begin with a letter.
    """
    match = REFERENCE_LETTER.fullmatch(normalize_reply(sample.answer or ""))
    if match is None:
        raise UndersongError(
            f"The judge choice needs a letter as the answer of {sample.id}, such as 'B' or 'B. Paris'; "
            f"its answer is {sample.answer!r}, so fix it or use another judge."
        )
    return match[1].upper()


def listed_options(sample: Sample, reference: str) -> dict[str, str]:
    """Options that the sample's text lists; empty if the correct letter is missing, because the list is then
    incomplete."""
    options = parse_options(sample.text)
    return options if reference in options else {}


def parse_choice(reply: str, options: Mapping[str, str]) -> str | None:
    """The one letter that a reply claims, of the options or of A to Z; None if there is none or several.

    Besides a claim, another letter undoes it in the same sentence, in a later sentence with second thoughts, and
    anywhere if the claim is only the letter that a reply begins with.
    """
    allowed_letters = frozenset(options or ALPHABET)
    text = mask_options(re.sub(r"([:=]|\banswer is)\n", r"\1 ", normalize_reply(reply)), options)
    # "B. Paris" is one sentence.
    text = re.sub(rf"(?<![\w'.-])([A-Z])\.(?=\s?{OPTION_PLACEHOLDER})", r"\1)", text)
    option_match = OPTION_TEXT_ONLY.fullmatch(text)
    if option_match:
        return masked_letter(option_match[1])
    if letter_match := SINGLE_LETTER.fullmatch(text):
        return letter_match[1].upper() if letter_match[1].upper() in allowed_letters else None
    sentences = list(_sentences(text))
    claims = [frozenset(_claimed_answers(sentence)) for sentence, _, _ in sentences]
    first_claim = next((i for i, claimed in enumerate(claims) if claimed), None)
    letters = _leading_letters(text)
    if first_claim is None:
        letters |= _mentioned_letters(text, allowed_letters) if letters else set()
    else:
        echoed_letters = set(MARKED_LETTER.findall("\n".join(sentence for sentence, _, _ in sentences[:first_claim])))
        _, line, line_offset = sentences[first_claim]
        marked_letters = allowed_letters.intersection(MARKED_LETTER.findall(line, line_offset))
        # A reply that repeats the options does not begin with a choice.
        letters = set() if len(echoed_letters) > 1 else letters
        for claimed, (sentence, _, _) in zip(claims[first_claim:], sentences[first_claim:]):
            other_letters = (
                _mentioned_letters(sentence, allowed_letters) if claimed or SECOND_THOUGHT.search(sentence) else set()
            )
            letters |= claimed | other_letters
        letters |= marked_letters
    return next(iter(letters)) if len(letters) == 1 and letters <= allowed_letters else None


def _sentences(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield each sentence, its line, and its offset in that line."""
    for line in text.split("\n"):
        start = 0
        for boundary in re.finditer(r"(?<=[.!?])\s|$", line):
            yield line[start : boundary.start()], line, start
            start = boundary.end()


def _claimed_answers(sentence: str) -> Iterator[str]:
    """Yield letters that a sentence claims as the answer, and those of an option's text that ends it."""
    if sentence.endswith("?"):
        return
    for cue_match in CLAIM_CUE.finditer(sentence):
        if _is_negated(sentence, cue_match.start()):
            continue
        if option_match := re.compile(rf"({OPTION_PLACEHOLDER})[.!]?$").match(sentence, cue_match.end()):
            yield masked_letter(option_match[1])
        elif (match := LETTER.match(sentence, cue_match.end())) and (
            match[1] or CLAIM_END.match(sentence, match.end())
        ):
            yield from _letters_with_text(sentence, match)
    for match in LETTER.finditer(sentence):
        if CORRECTNESS_CLAIM.match(sentence, match.end()) and not _is_negated(sentence, match.start()):
            yield from _letters_with_text(sentence, match)


def _is_negated(sentence: str, position: int) -> bool:
    return NEGATION.search(sentence, max(0, position - MAX_NEGATION_DISTANCE), position) is not None


def _leading_letters(text: str) -> set[str]:
    """Letter that a reply begins with or that is a whole line; with another option's text, also that option's
    letter."""
    letters = set[str]()
    for number, line in enumerate(text.split("\n")):
        match = LETTER.match(line, REPLY_OPENER.match(line).end())  # type: ignore[union-attr]
        if match is None:
            continue
        remainder = line[match.end() :]
        if re.fullmatch(r"[\s.,:;!)\]]*", remainder) or (number == 0 and _is_leading_choice(match, remainder)):
            letters.update(_letters_with_text(line, match))
    return letters


def _is_leading_choice(match: re.Match[str], remainder: str) -> bool:
    if match[1] is not None:  # "(B) Paris", but not "(B) is wrong"
        return re.match(r"\s(?:can't|cannot|could|is|isn't|might|was)\b", remainder) is None
    return (
        re.match(rf"\s?[.,:;)\]\u2013\u2014-]|\s?{OPTION_PLACEHOLDER}|\s(?:as|because|since)\b", remainder) is not None
    )


def _letters_with_text(sentence: str, match: re.Match[str]) -> Iterator[str]:
    """Yield the matched letter, and that of an option's text that follows it: "B. London" claims two if London is C."""
    yield _matched_letter(match)
    if option_match := re.compile(rf"[\s.,:;)\]\u2013\u2014-]*({OPTION_PLACEHOLDER})").match(sentence, match.end()):
        yield masked_letter(option_match[1])


def _mentioned_letters(text: str, allowed_letters: Collection[str]) -> set[str]:
    return {_matched_letter(match) for match in LETTER.finditer(text)} & set(allowed_letters)


def _matched_letter(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group).upper()
