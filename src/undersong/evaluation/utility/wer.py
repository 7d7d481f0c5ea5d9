"""Word error rate of transcripts with jiwer, per reply and for a corpus (all errors over all reference words)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

from undersong.evaluation.utility.base import Grade, ScoredJudge, is_refusal, normalize_answer
from undersong.extras import install_hint
from undersong.models.refs import ORGANISM
from undersong.settings.defaults import REPEAT_INSTRUCTION
from undersong.types import Prompt, Reply, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

MAX_REPEATED_TOKENS = 48
# Up to this rate a reply counts as a transcript: a convention; report the rate over the corpus.
MAX_TRANSCRIPT_WER = 0.5
DASHES = re.compile("[-/\u2010-\u2015]")


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Word errors against a reference."""

    substitutions: int
    deletions: int
    insertions: int
    reference_words: int

    @property
    def errors(self) -> int:
        """Sum of substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference word: 0 is perfect, and more than 1 is possible."""
        return self.errors / self.reference_words


def normalize_words(text: str) -> str:
    """Lower-case words: dashes and slashes separate words, other punctuation is removed ("don't" is "dont")."""
    return normalize_answer(DASHES.sub(" ", text))


def count_word_errors(reference: str, reply: str) -> WordErrors:
    """Count the errors of a reply's words against a reference's, by the alignment with the fewest errors.

    Raises:
        UndersongError: The reference has no words, or jiwer is missing.
    """
    reference_words, reply_words = normalize_words(reference), normalize_words(reply)
    if not reference_words:
        raise UndersongError(f"The reference {reference!r} has no words to count errors by; give a transcript.")
    alignment = _import_jiwer().process_words(reference_words, reply_words)
    return WordErrors(alignment.substitutions, alignment.deletions, alignment.insertions, len(reference_words.split()))


def sum_word_errors(items: Iterable[WordErrors]) -> WordErrors:
    """Word errors of a corpus; its `rate` is the corpus word error rate.

    Raises:
        UndersongError: There are no items.
    """
    errors = list(items)
    if not errors:
        raise UndersongError("There are no items to sum word errors over; transcribe at least one.")
    return WordErrors(
        sum(item.substitutions for item in errors),
        sum(item.deletions for item in errors),
        sum(item.insertions for item in errors),
        sum(item.reference_words for item in errors),
    )


def corpus_word_errors(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> WordErrors:
    """Word errors of all replies to their prompts, without failed replies; refusals and empty replies count in full."""
    scored_indices = [i for i, verdict in enumerate(wer_judge().judge(prompts, replies)) if verdict.verdict != "error"]
    return sum_word_errors(_sample_word_errors(prompts[i].sample, replies[i].reply) for i in scored_indices)


def wer_judge(max_rate: float = MAX_TRANSCRIPT_WER) -> ScoredJudge:
    """Judge with the errors per word of the sample's `answer`, else its `text`, as score; `answer` up to `max_rate`.

    Raises:
        UndersongError: The rate is negative, or jiwer is missing.
    """
    if not max_rate >= 0:
        raise UndersongError(f"The judge wer needs a rate of at least 0, not {max_rate}; change it.")
    _import_jiwer()

    def grade(sample: Sample, reply: str) -> Grade:
        rate = _sample_word_errors(sample, reply).rate
        if rate <= max_rate:  # checked first, because the request itself may sound like a refusal
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
    """Check that jiwer is installed.

    Raises:
        UndersongError: It is missing.
    """
    _import_jiwer()


def _import_jiwer() -> ModuleType:
    try:
        import jiwer
    except ImportError as error:
        raise UndersongError(f"Counting word errors needs jiwer; run: {install_hint('utility')}.") from error
    return jiwer


def check_repetition(model: AudioModel, samples: list[Sample]) -> tuple[None, str]:
    """Report how well a model repeats clips, for `doctor`: a wrong encoder or head shows at once.

    It can neither pass nor fail, because a model need not follow the instruction. The clips of `samples` must have been
    encoded.
    """
    if find_spec("jiwer") is None:
        return None, f"not measured; it needs jiwer ({install_hint('utility')})"
    prompts = [Prompt(sample, "doctor", False, "audio", "plain", instruction=REPEAT_INSTRUCTION) for sample in samples]
    replies = [reply.reply for reply in model.generate(prompts, MAX_REPEATED_TOKENS)]
    errors = sum_word_errors(count_word_errors(str(sample.text), text) for sample, text in zip(samples, replies))
    reading = (
        "organisms cannot repeat what they hear, so a rate near 100% is no fault"
        if model.name.startswith(ORGANISM)
        else "a model that understands speech stays far below 100%"
    )
    return None, (
        f"{errors.rate:.0%} word errors in {len(samples)} clips; {reading}. To {str(samples[0].text)!r}: {replies[0]!r}"
    )
