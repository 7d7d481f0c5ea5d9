"""A verdict as a score of inspect_ai, and back: its word is the value, the rest of its row stands in the metadata."""

from __future__ import annotations

from dataclasses import asdict

from inspect_ai.scorer import Score

from undersong.evaluation.table_rows import VERDICT_METADATA_KEY
from undersong.types import Verdict

# Why there is no verdict on a reply, in inspect_ai's words.
NO_VERDICT_REASONS = {"unparsed": "grader_failed", "error": "no_response", "refusal": "refusal"}


def score_of(verdict: Verdict, answer: str | None = None) -> Score:
    """`answer`: the reply, where it may be shown."""
    row = asdict(verdict)
    word = row.pop("verdict")
    return Score(
        value=word,
        answer=answer,
        explanation=f"{verdict.judge}: {word}",
        reason=NO_VERDICT_REASONS.get(word),
        metadata={VERDICT_METADATA_KEY: row},
    )


def verdict_of_score(score: Score) -> Verdict:
    """The verdict of a score of ours; a value that was edited since counts."""
    row = (score.metadata or {})[VERDICT_METADATA_KEY]
    return Verdict(**row, verdict=str(score.value))
