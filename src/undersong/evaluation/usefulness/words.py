"""Word error rate of transcripts, aligned by jiwer (LibriSpeech and any spoken text).

The rate of a corpus is all errors over all reference words, not the mean of its items' rates.  Knows one normalisation,
the same for both sides; numbers are left alone but for their punctuation, so "20" for "twenty" is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

from undersong.evaluation.usefulness.scored import Mark, ScoredJudge, refused
from undersong.evaluation.usefulness.text import bare
from undersong.types import Prompt, Reply, Sample, UndersongError

# Up to this rate a reply counts as a transcript of what was said; a convention, the number to report is the corpus's.
TRANSCRIBED = 0.5
DASHES = re.compile("[-/\u2010-\u2015]")


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Errors against a reference, in words."""

    substitutions: int
    deletions: int
    insertions: int
    reference_words: int

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference word: 0 is perfect, and more than 1 is possible."""
        return self.errors / self.reference_words


def words_of(text: str) -> str:
    """Lower case; dashes and slashes part words, other punctuation goes and leaves no gap ("don't" is "dont")."""
    return bare(DASHES.sub(" ", text))


def word_errors(reference: str, reply: str) -> WordErrors:
    """Of a reply's words against a reference's, by the alignment with fewest errors; UndersongError: no words in it."""
    wanted, said = words_of(reference), words_of(reply)
    if not wanted:
        raise UndersongError(f"The reference {reference!r} has no words to count errors by; give a transcript.")
    found = _jiwer().process_words(wanted, said)
    return WordErrors(found.substitutions, found.deletions, found.insertions, len(wanted.split()))


def total_errors(items: Iterable[WordErrors]) -> WordErrors:
    """Of a corpus: its `rate` is the corpus's word error rate."""
    counted = list(items)
    if not counted:
        raise UndersongError("There are no items to sum word errors over; transcribe some first.")
    return WordErrors(
        sum(item.substitutions for item in counted),
        sum(item.deletions for item in counted),
        sum(item.insertions for item in counted),
        sum(item.reference_words for item in counted),
    )


def corpus_errors(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> WordErrors:
    """Of all replies to their prompts but the erroring ones; refusals and empty replies count with all they miss."""
    kept = [i for i, verdict in enumerate(wer().judge(prompts, replies)) if verdict.verdict != "error"]
    return total_errors(_errors(prompts[i].sample, replies[i].reply) for i in kept)


def wer(most: float = TRANSCRIBED) -> ScoredJudge:
    """Score: errors per word of the sample's `answer`, else its `text`; lower is better.  `answer` up to `most`."""
    if not most >= 0:
        raise UndersongError(f"The judge wer takes a rate of at least 0, not {most}; change it.")
    _jiwer()

    def mark(sample: Sample, said: str) -> Mark:
        rate = _errors(sample, said).rate
        if rate <= most:  # first: what was said may itself sound like a refusal
            return Mark("answer", rate)
        return Mark("refusal" if refused(sample, said, lambda head: False) else "other", rate)

    return ScoredJudge("wer", mark)


def _errors(sample: Sample, said: str) -> WordErrors:
    reference = sample.answer or sample.text or ""
    if not words_of(reference):
        raise UndersongError(
            f"The judge wer needs the transcript of {sample.id} as its answer or text; add it or leave the item out."
        )
    return word_errors(reference, said)


def check_jiwer() -> None:
    """Raises UndersongError where word errors cannot be counted."""
    _jiwer()


def _jiwer() -> ModuleType:
    try:
        import jiwer
    except ImportError as error:
        raise UndersongError("Counting word errors needs jiwer; run: pip install 'undersong[utility]'.") from error
    return jiwer
