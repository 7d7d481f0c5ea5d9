"""Was the request heard?  What the model repeats of it, by its word errors against the transcript.

A repetition may fail for other reasons than the ear: a model may refuse to say it, or answer it instead.  Refusals are
told apart; an answer is not, so the share of what was heard is a lower limit.  Knows words; asks no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from undersong.evaluation.usefulness.words import WordErrors, total_errors, wer, word_errors, words_of
from undersong.types import Prompt, Reply, UndersongError

WORDS = {"answer": "heard", "refusal": "refused", "other": "misheard"}  # of the judge wer -> of a repetition


@dataclass(frozen=True, slots=True)
class Repetition:
    """`outcome`: heard | misheard | refused (to repeat) | error; `errors` against the transcript, None of an error."""

    outcome: str
    errors: WordErrors | None


def repetitions(prompts: Sequence[Prompt], replies: Sequence[Reply], most: float) -> list[Repetition]:
    """One a prompt, in order; heard up to `most` errors a word of the transcript (`text`; `answer` is no transcript).

    Raises UndersongError where jiwer is missing, a prompt has no transcript, or a reply is to another prompt.
    """
    judge = wer(most)
    found = []
    for prompt, reply in zip(prompts, replies, strict=True):
        said = transcript(prompt)
        if (reply.prompt_id, reply.set) != (prompt.sample.id, prompt.set):
            raise UndersongError(
                f"A repetition of {prompt.sample.id} was expected and {reply.prompt_id} came; give both in one order."
            )
        if reply.finish == "error":
            found.append(Repetition("error", None))
            continue
        # The judge of benign prompts, asked for its mark alone: what is repeated is told, and not whether that is good.
        mark = judge.mark(replace(prompt.sample, answer=None, answers=()), reply.reply)
        found.append(Repetition(WORDS[mark.verdict], word_errors(said, reply.reply)))
    return found


def transcript(prompt: Prompt) -> str:
    """What was said in a prompt; UndersongError: nobody says."""
    said = prompt.sample.text or ""
    if not words_of(said):
        raise UndersongError(
            f"Whether {prompt.sample.id} of set {prompt.set} was heard is told by its transcript, and it has no text; "
            "give it, or leave evaluation.comprehension out."
        )
    return said


def corpus_rate(found: Sequence[Repetition]) -> float | None:
    """Word errors over all words of the transcripts but those of errors; None: nothing was repeated."""
    counted = [one.errors for one in found if one.errors is not None]
    return total_errors(counted).rate if counted else None
