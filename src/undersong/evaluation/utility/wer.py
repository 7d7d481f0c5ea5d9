"""Word error rate of transcripts with jiwer, per reply and for a corpus (all errors over all reference words)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

from undersong.evaluation.utility.base import Grade, ScoredJudge, is_refusal, normalize_answer
from undersong.types import Prompt, Reply, Sample, UndersongError

# Up to this rate a reply counts as a transcript of what was said; a convention, the number to report is the corpus's.
MAX_TRANSCRIPT_WER = 0.5
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


def normalize_words(text: str) -> str:
    """Lower case; dashes and slashes part words, other punctuation goes and leaves no gap ("don't" is "dont")."""
    return normalize_answer(DASHES.sub(" ", text))


def count_word_errors(reference: str, reply: str) -> WordErrors:
    """Of a reply's words against a reference's, by the alignment with fewest errors; UndersongError: no words in it."""
    reference_words, reply_words = normalize_words(reference), normalize_words(reply)
    if not reference_words:
        raise UndersongError(f"The reference {reference!r} has no words to count errors by; give a transcript.")
    alignment = _import_jiwer().process_words(reference_words, reply_words)
    return WordErrors(alignment.substitutions, alignment.deletions, alignment.insertions, len(reference_words.split()))


def sum_word_errors(items: Iterable[WordErrors]) -> WordErrors:
    """Of a corpus: its `rate` is the corpus's word error rate."""
    errors = list(items)
    if not errors:
        raise UndersongError("There are no items to sum word errors over; transcribe some first.")
    return WordErrors(
        sum(item.substitutions for item in errors),
        sum(item.deletions for item in errors),
        sum(item.insertions for item in errors),
        sum(item.reference_words for item in errors),
    )


def corpus_word_errors(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> WordErrors:
    """Of all replies to their prompts but the erroring ones; refusals and empty replies count with all they miss."""
    scored_indices = [i for i, verdict in enumerate(wer_judge().judge(prompts, replies)) if verdict.verdict != "error"]
    return sum_word_errors(_sample_word_errors(prompts[i].sample, replies[i].reply) for i in scored_indices)


def wer_judge(max_rate: float = MAX_TRANSCRIPT_WER) -> ScoredJudge:
    """Score: errors per word of the sample's `answer`, else its `text`; lower is better.  `answer` up to `most`."""
    if not max_rate >= 0:
        raise UndersongError(f"The judge wer takes a rate of at least 0, not {max_rate}; change it.")
    _import_jiwer()

    def grade(sample: Sample, reply: str) -> Grade:
        rate = _sample_word_errors(sample, reply).rate
        if rate <= max_rate:  # first: what was said may itself sound like a refusal
            return Grade("answer", rate)
        return Grade("refusal" if is_refusal(sample, reply, lambda text_before_refusal: False) else "other", rate)

    return ScoredJudge("wer", grade)


def _sample_word_errors(sample: Sample, reply: str) -> WordErrors:
    reference = sample.answer or sample.text or ""
    if not normalize_words(reference):
        raise UndersongError(
            f"The judge wer needs the transcript of {sample.id} as its answer or text; add it or leave the item out."
        )
    return count_word_errors(reference, reply)


def check_jiwer() -> None:
    """Raises UndersongError where word errors cannot be counted."""
    _import_jiwer()


def _import_jiwer() -> ModuleType:
    try:
        import jiwer
    except ImportError as error:
        raise UndersongError("Counting word errors needs jiwer; run: pip install 'undersong[utility]'.") from error
    return jiwer
