"""Limits of `watch`: which rise over the base is shown, although every checkpoint is another look.

A test at 95 % after each of twenty checkpoints stops up to 64 % of the trainings that do no harm (1 - 0.95^20, where
the looks are independent). So the error rate is spent: look k is tested at level (1 - confidence) / (k (k + 1)). These
levels sum to 1 - confidence over any number of looks. So the chance of a wrong stop is at most that, for any number of
checkpoints and any dependence between them (a union bound). Dependence is the rule here, because all checkpoints reply
to the same prompts. The test of one look is that of `undersong gate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from undersong.audits.gate.findings import FAILED, INCONCLUSIVE, PASSED, exit_code
from undersong.audits.gate.margins import MarginTest
from undersong.audits.gate.rises import RiseLimits, RiseTest, evaluate_rises
from undersong.types import Verdict


def look_confidence(look: int, confidence: float) -> float:
    """Confidence at which look number `look` (from 1) is tested, so that all looks together keep `confidence`."""
    return 1 - (1 - confidence) / (look * (look + 1))


@dataclass(frozen=True)
class CheckpointTest:
    """Tests of one checkpoint against the base.

    Attributes:
        look: Number of the checkpoint in the order of measuring, from 1.
        corrected: Tests at the confidence of this look; they stop a training.
        plain: The same tests at the whole confidence, as `gate` makes them of one checkpoint; they let one pass.
    """

    name: str
    look: int
    corrected: tuple[RiseTest | MarginTest, ...]
    plain: tuple[RiseTest | MarginTest, ...]

    @property
    def broken(self) -> list[RiseTest | MarginTest]:
        """Tests that show a rise above their limit."""
        return [test for test in self.corrected if test.outcome == FAILED]

    @property
    def outcome(self) -> int:
        """Exit code: failed if a rise is shown, passed if `gate` would let this checkpoint pass, else inconclusive."""
        if self.broken:
            return FAILED
        return PASSED if exit_code([test.outcome for test in self.plain]) == PASSED else INCONCLUSIVE


def compare_with_base(
    name: str, look: int, base: Sequence[Verdict], verdicts: Sequence[Verdict], limits: RiseLimits
) -> CheckpointTest:
    """Test a checkpoint against the base.

    Args:
        name: Name of the checkpoint.
        look: Its number in the order of measuring, from 1.
        base: Verdicts of the base.
        verdicts: Verdicts of the checkpoint, on the same prompts.
        limits: Limits, and the confidence of all looks together.
    """
    pair = {name: (base, verdicts)}
    corrected = evaluate_rises(pair, replace(limits, confidence=look_confidence(look, limits.confidence)))
    return CheckpointTest(name, look, corrected, evaluate_rises(pair, limits))
