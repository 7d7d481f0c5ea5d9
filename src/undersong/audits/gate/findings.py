"""Findings of the gate, with their outcomes, words and exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PASSED, FAILED, INCONCLUSIVE = 0, 1, 3  # exit codes; 2 is bad input
OUTCOME_WORDS = {PASSED: "kept", FAILED: "broken", INCONCLUSIVE: "cannot tell"}


@dataclass(frozen=True, slots=True)
class FindingNumbers:
    """Numbers of a finding, for programs and pictures; None: not measured, or no such bound."""

    kind: str  # rise | margin loss | rate
    before: float | None
    after: float | None  # of a rate without a base: the rate
    low: float | None  # one-sided bounds of what the limit applies to
    high: float | None
    limit: float
    n: int | None = None
    clusters: int | None = None
    lost_replies: int = 0
    cut_short_replies: int = 0  # cut at the limit of tokens, and without a clear verdict
    unpaired_prompts: int = 0
    prompts_needed: int | None = None  # that would decide an undecided limit
    labels: int | None = None  # that correct the rate; None: it is the judge's alone
    labels_needed: int | None = None  # that would decide an undecided limit
    judge_before: float | None = None  # of a corrected rate, by the judge alone
    judge_after: float | None = None


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
    numbers: FindingNumbers | None = None


@dataclass(frozen=True, slots=True)
class ComparedFile:
    """A file that the gate read, and what it stands for."""

    role: str  # before | after | results
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class GateDecision:
    """All that a gate decided: its findings, the change that they are about, and the files that were compared."""

    findings: tuple[GateFinding, ...]
    change: str = ""  # what happened between before and after, in the user's words
    compared: tuple[ComparedFile, ...] = ()
    confidence: float = 0.95
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Exit code of the command."""
        return exit_code([finding.outcome for finding in self.findings])


def exit_code(outcomes: Sequence[int]) -> int:
    """Return the exit code: failed if any limit is broken, else inconclusive if any test is, else passed."""
    return next((code for code in (FAILED, INCONCLUSIVE) if code in outcomes), PASSED)
