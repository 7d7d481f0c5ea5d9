"""Findings of the gate, with their outcomes, words and exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PASSED, FAILED, INCONCLUSIVE = 0, 1, 3  # exit codes; 2 is bad input
OUTCOME_WORDS = {PASSED: "kept", FAILED: "broken", INCONCLUSIVE: "cannot tell"}


@dataclass(frozen=True, slots=True)
class GateFinding:
    """Outcome of one limit for one model, with the texts of the report."""

    model: str
    metric: str  # which rate, of which prompts
    estimate: str
    lower_bound: str
    upper_bound: str
    limit: str
    outcome: int  # PASSED | FAILED | INCONCLUSIVE
    sentence: str  # all of it in a sentence


def exit_code(outcomes: Sequence[int]) -> int:
    """Return the exit code: failed if any limit is broken, else inconclusive if any test is, else passed."""
    return next((code for code in (FAILED, INCONCLUSIVE) if code in outcomes), PASSED)
