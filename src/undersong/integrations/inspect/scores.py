"""A verdict as a score of inspect_ai, and back: its word is the value, the rest of its row stands in the metadata."""

from __future__ import annotations

from dataclasses import asdict

from inspect_ai.scorer import Score

from undersong.evaluation.logged import MARK
from undersong.types import Verdict

# Why there is no verdict on a reply, in inspect_ai's words.
REASONS = {"unparsed": "grader_failed", "error": "no_response", "refusal": "refusal"}


def score_of(verdict: Verdict, answer: str | None = None) -> Score:
    """`answer`: the reply, where it may be shown."""
    row = asdict(verdict)
    word = row.pop("verdict")
    return Score(
        value=word,
        answer=answer,
        explanation=f"{verdict.judge}: {word}",
        reason=REASONS.get(word),
        metadata={MARK: row},
    )


def verdict_of(score: Score) -> Verdict:
    """The verdict of a score of ours; a value that was edited since counts."""
    row = (score.metadata or {})[MARK]
    return Verdict(**row, verdict=str(score.value))
