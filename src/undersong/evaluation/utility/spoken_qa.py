"""Spoken question answering (SD-QA, HeySQuAD, Spoken-SQuAD): containment and SQuAD's token F1 (arXiv 1606.05250)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from undersong.evaluation.utility.base import Grade, ScoredJudge, is_refusal, normalize_answer
from undersong.types import Sample, UndersongError

ARTICLES = ("a", "an", "the")
MIN_ANSWER_F1 = 0.5  # F1 from which a reply counts as the answer: a convention; report the mean score


def contains_judge() -> ScoredJudge:
    """Judge that says `answer`, with score 1, if the reply contains a reference as whole words after SQuAD's
    normalization."""

    def score(reference: str, reply: str) -> float:
        reference_words, reply_words = comparable_words(reference, reply)
        if not squad_words(reference):  # "A", "the", "+": too short to search for in a text
            return float(reference_words == reply_words)
        return float(f" {' '.join(reference_words)} " in f" {' '.join(reply_words)} ")

    return ScoredJudge("contains", lambda sample, reply: _grade_best_reference("contains", score, 1.0, sample, reply))


def f1_judge(min_score: float = MIN_ANSWER_F1) -> ScoredJudge:
    """Judge with the token F1 in [0, 1] to the best reference as score; `answer` from `min_score` on. Report
    the mean score.

    Raises:
        UndersongError: The threshold is not above 0 and at most 1.
    """
    if not 0 < min_score <= 1:
        raise UndersongError(f"The judge f1 needs a threshold above 0 and up to 1, not {min_score}; change it.")
    return ScoredJudge("f1", lambda sample, reply: _grade_best_reference("f1", token_f1, min_score, sample, reply))


def token_f1(reference: str, reply: str) -> float:
    """SQuAD's F1 of two texts as bags of words: the harmonic mean of precision and recall."""
    reference_words, reply_words = comparable_words(reference, reply)
    common = (Counter(reference_words) & Counter(reply_words)).total()
    return 2 * common / (len(reference_words) + len(reply_words)) if common else 0.0


def squad_words(text: str) -> list[str]:
    """Words in lower case without punctuation and articles."""
    return [word for word in normalize_answer(text).split() if word not in ARTICLES]


def comparable_words(reference: str, reply: str) -> tuple[list[str], list[str]]:
    """Words of both texts; if nothing of the reference would be left, its articles are kept, then its punctuation too.

    SQuAD's own rule leaves nothing of vitamin "A", so that any reply without words would be correct.
    """
    for tokenize in (squad_words, lambda text: normalize_answer(text).split()):
        if reference_words := tokenize(reference):
            return reference_words, tokenize(reply)
    return reference.split(), reply.split()


def _grade_best_reference(
    judge_name: str, score: Callable[[str, str], float], min_score: float, sample: Sample, reply: str
) -> Grade:
    references = [text for text in sample.answers or (sample.answer or "",) if text.strip()]
    if not references:
        raise UndersongError(
            f"The judge {judge_name} needs an answer of {sample.id}; add it, "
            "or leave the item out if it is unanswerable."
        )

    def best_score(text: str) -> float:
        return max(score(reference, text) for reference in references)

    if is_refusal(sample, reply, lambda text_before_refusal: best_score(text_before_refusal) >= min_score):
        return Grade("refusal", 0.0)
    reply_score = best_score(reply)
    return Grade("answer" if reply_score >= min_score else "other", reply_score)
