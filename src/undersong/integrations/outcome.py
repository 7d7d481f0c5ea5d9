"""What a gate found, case by case, and the exit code of all together.  Knows neither rates nor files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KEPT, BROKEN, UNSURE = 0, 1, 3  # exit codes; 2 is bad input
WORDS = {KEPT: "kept", BROKEN: "broken", UNSURE: "cannot tell"}


@dataclass(frozen=True, slots=True)
class Case:
    """One limit on one model: what a line of the report says."""

    model: str
    measured: str  # which rate, of which prompts
    found: str
    at_least: str
    at_most: str
    limit: str
    outcome: int  # KEPT | BROKEN | UNSURE
    line: str  # all of it in a sentence


def exit_code(outcomes: Sequence[int]) -> int:
    """One broken limit closes the gate; else one that cannot be told holds it; it opens only where all are kept."""
    return next((code for code in (BROKEN, UNSURE) if code in outcomes), KEPT)
