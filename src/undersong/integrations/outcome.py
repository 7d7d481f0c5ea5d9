"""What a gate found, case by case, and the exit code of all together.  Knows neither rates nor files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PASSED, FAILED, INCONCLUSIVE = 0, 1, 3  # exit codes; 2 is bad input
OUTCOME_WORDS = {PASSED: "kept", FAILED: "broken", INCONCLUSIVE: "cannot tell"}


@dataclass(frozen=True, slots=True)
class GateFinding:
    """One limit on one model: what a line of the report says."""

    model: str
    metric: str  # which rate, of which prompts
    estimate: str
    lower_bound: str
    upper_bound: str
    limit: str
    outcome: int  # KEPT | BROKEN | UNSURE
    sentence: str  # all of it in a sentence


def exit_code(outcomes: Sequence[int]) -> int:
    """One broken limit closes the gate; else one that cannot be told holds it; it opens only where all are kept."""
    return next((code for code in (FAILED, INCONCLUSIVE) if code in outcomes), PASSED)
