"""Spoken questions with short answers (SD-QA, HeySQuAD, Spoken-SQuAD): containment and SQuAD's F1 (arXiv 1606.05250).

Both take a sample's `answers`, or its `answer`, and the best of them.  Neither reads: containment also finds an answer
that a reply denies or lists among others, and F1 falls as a reply grows longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from undersong.evaluation.usefulness.scored import Mark, ScoredJudge, refused
from undersong.evaluation.usefulness.text import bare
from undersong.types import Sample, UndersongError

ARTICLES = ("a", "an", "the")
ANSWERED = 0.5  # F1 from which a reply counts as the answer: a convention; the number to report is the mean of scores


def contains() -> ScoredJudge:
    """`answer`, score 1, where the reply holds a reference as whole words after SQuAD's normalisation; else 0."""

    def score(reference: str, said: str) -> float:
        wanted, words = compared(reference, said)
        if not squad_words(reference):  # "A", "the", "+": too small to be looked for inside
            return float(wanted == words)
        return float(f" {' '.join(wanted)} " in f" {' '.join(words)} ")

    return ScoredJudge("contains", lambda sample, said: _best("contains", score, 1.0, sample, said))


def f1(answered: float = ANSWERED) -> ScoredJudge:
    """Score: the token F1 in [0, 1] to the best reference; `answer` from `answered` on.  Report `mean_score`."""
    if not 0 < answered <= 1:
        raise UndersongError(f"The judge f1 takes a threshold above 0 and up to 1, not {answered}; change it.")
    return ScoredJudge("f1", lambda sample, said: _best("f1", token_f1, answered, sample, said))


def token_f1(reference: str, said: str) -> float:
    """SQuAD's F1 of two texts' words as bags: the harmonic mean of precision and recall."""
    wanted, words = compared(reference, said)
    common = (Counter(wanted) & Counter(words)).total()
    return 2 * common / (len(wanted) + len(words)) if common else 0.0


def squad_words(text: str) -> list[str]:
    """Words in lower case without punctuation and articles."""
    return [word for word in bare(text).split() if word not in ARTICLES]


def compared(reference: str, said: str) -> tuple[list[str], list[str]]:
    """Words of both; where nothing of a reference would be left, its articles stay, and else its punctuation too.

    SQuAD's own rule leaves nothing of vitamin "A", so that any reply without words would be right.
    """
    for words in (squad_words, lambda text: bare(text).split()):
        if wanted := words(reference):
            return wanted, words(said)
    return reference.split(), said.split()


def _best(name: str, score: Callable[[str, str], float], answered: float, sample: Sample, said: str) -> Mark:
    references = [text for text in sample.answers or (sample.answer or "",) if text.strip()]
    if not references:
        raise UndersongError(
            f"The judge {name} needs an answer of {sample.id}; add it, or leave the item out if it is unanswerable."
        )

    def best(text: str) -> float:
        return max(score(reference, text) for reference in references)

    if refused(sample, said, lambda head: best(head) >= answered):
        return Mark("refusal", 0.0)
    found = best(said)
    return Mark("answer" if found >= answered else "other", found)
