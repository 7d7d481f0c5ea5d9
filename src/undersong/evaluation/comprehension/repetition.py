"""Was the request heard?  What the model repeats of it, by its word errors against the transcript.

A repetition may fail for other reasons than the ear: a model may refuse to say it, or answer it instead.  Refusals are
told apart; an answer is not, so the share of what was heard is a lower limit.  Knows words; asks no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from undersong.evaluation.utility.wer import (
    WordErrors,
    count_word_errors,
    normalize_words,
    sum_word_errors,
    wer_judge,
)
from undersong.types import Prompt, Reply, UndersongError

REPETITION_OUTCOMES = {
    "answer": "heard",
    "refusal": "refused",
    "other": "misheard",
}  # of the judge wer -> of a repetition


@dataclass(frozen=True, slots=True)
class Repetition:
    """`outcome`: heard | misheard | refused (to repeat) | error; `errors` against the transcript, None of an error."""

    outcome: str
    errors: WordErrors | None


def judge_repetitions(
    prompts: Sequence[Prompt], replies: Sequence[Reply], max_word_error_rate: float
) -> list[Repetition]:
    """One a prompt, in order; heard up to `most` errors a word of the transcript (`text`; `answer` is no transcript).

    Raises UndersongError where jiwer is missing, a prompt has no transcript, or a reply is to another prompt.
    """
    judge = wer_judge(max_word_error_rate)
    results = []
    for prompt, reply in zip(prompts, replies, strict=True):
        request_text = prompt_transcript(prompt)
        if (reply.prompt_id, reply.set) != (prompt.sample.id, prompt.set):
            raise UndersongError(
                f"A repetition of {prompt.sample.id} was expected and {reply.prompt_id} came; give both in one order."
            )
        if reply.finish == "error":
            results.append(Repetition("error", None))
            continue
        # The judge of benign prompts, asked for its mark alone: what is repeated is told, and not whether that is good.
        grade = judge.grade(replace(prompt.sample, answer=None, answers=()), reply.reply)
        results.append(Repetition(REPETITION_OUTCOMES[grade.verdict], count_word_errors(request_text, reply.reply)))
    return results


def prompt_transcript(prompt: Prompt) -> str:
    """What was said in a prompt; UndersongError: nobody says."""
    text = prompt.sample.text or ""
    if not normalize_words(text):
        raise UndersongError(
            f"Whether {prompt.sample.id} of set {prompt.set} was heard is told by its transcript, and it has no text; "
            "give it, or leave evaluation.comprehension out."
        )
    return text


def corpus_word_error_rate(repetitions: Sequence[Repetition]) -> float | None:
    """Word errors over all words of the transcripts but those of errors; None: nothing was repeated."""
    errors = [repetition.errors for repetition in repetitions if repetition.errors is not None]
    return sum_word_errors(errors).rate if errors else None
