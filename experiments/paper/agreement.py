"""The rule by which a number agrees with what the paper says or not, fixed before any of these studies was run.

Every question has an estimate, its 95 % interval, and what the paper says of it: that it lies above or below an edge
(0, or a margin), or within an edge of 0.  The p value is two-sided and against that edge, over independent units
(bases, else draws, else seeds): of a paired t test where two trained arms are held against 0 (`undersong.statistics.runs`),
and of a bound for any run noise where a rate, a difference from a base or a margin is (`undersong.statistics.run_bounds`).
Holm's correction is over all questions of the page that have something to agree with, and over those that have not by
themselves.

reproduced         corrected p <= .05, and the estimate is on the side that the paper claims
contradicted       corrected p <= .05, and it is on the other side
undecided          everything else; it leans to a side if the uncorrected interval excludes the edge
significant        the paper claims nothing: corrected p <= .05 against 0
too shallow        the decoder has too few layers to tell late from early ones; no p value
estimate only      fewer units than the registration asks for before anything is decided

Runs that agree exactly still have run noise: their interval and their p value are of the bound, too.  Three of them
leave it possible that 71 % of all trainings do otherwise.  (Until 30 November 2026 the interval over prompts decided in
this case, and whatever it left out was shown.)

A claim is reproduced if all its questions are, and reproduced in part if some are and the others are undecided
or not measured.  It is contradicted in the same two ways, and mixed if some questions are reproduced and some contradicted.
Knows numbers; does not know where they are from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from undersong.statistics.multiple_testing import holm
from undersong.statistics.power import units_needed

LEVEL = 0.05
AGREES, CONTRADICTS, UNKNOWN, DIFFERS = "reproduced", "contradicted", "undecided", "significant"
LEANS_FOR, LEANS_AGAINST, LEANS = "undecided, leans for", "undecided, leans against", "undecided, leans"
OPEN_WORDS = (UNKNOWN, LEANS_FOR, LEANS_AGAINST, LEANS)
MOST_COPIES = 20  # times the units; beyond it no number of units is told
MIXED, IN_PART, AGAINST_IN_PART = "mixed", "reproduced in part", "contradicted in part"
ABSENT = "not measured"
TOO_SHALLOW = "too shallow to tell"  # the decoder has too few layers for the question; as a note of an estimate
TOO_FEW = "estimate only"  # fewer units than were registered as the fewest that decide; as a note of an estimate

Side = Literal["above", "below", "within", "nothing"]


@dataclass(frozen=True)
class Expected:
    """What the paper says of a number: on which side of `edge` it lies, within ± `edge` of 0, or nothing."""

    side: Side
    edge: float = 0.0

    def nearest(self, value: float) -> float:
        """The edge that a value is tested against."""
        if self.side == "within":
            return self.edge if value >= 0 else -self.edge
        return self.edge

    def holds(self, value: float) -> bool:
        """Whether a value is as the paper says, noise apart."""
        if self.side == "within":
            return abs(value) < self.edge
        return value > self.edge if self.side == "above" else value < self.edge

    def in_words(self) -> str:
        """The condition, as a reader is told it."""
        if self.side == "nothing":
            return "no claim"
        edge = f"{100 * self.edge:+g}" if self.edge and self.side != "within" else f"{100 * self.edge:g}"
        edge = edge.replace("-", "\u2212")
        return f"{self.side} ±{edge}" if self.side == "within" else f"{self.side} {edge}"


ABOVE, BELOW, NOTHING = Expected("above"), Expected("below"), Expected("nothing")


@dataclass(frozen=True)
class Estimate:
    """A number and what is known of its noise.

    Attributes:
        p: Two-sided p value against the edge of what is expected.
        over: What the interval is over: runs, prompts, or all there is.
        sd: Standard deviation of the units' numbers; None where they agree exactly.
        bounds_of_copies: Number of copies of the units, one-sided confidence -> bounds; None where a t test decides.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    runs: int
    units: int
    over: Literal["runs", "prompts", "all"]
    sd: float | None = None
    p_adjusted: float | None = None
    note: str = ""
    bounds_of_copies: Callable[[int, float], tuple[float, float]] | None = field(
        default=None, compare=False, repr=False
    )


def units_to_settle(found: Estimate, expected: Expected, family: int) -> int | None:
    """Number of units that make the corrected test exclude the edge, if further units are like these.

    Args:
        found: The estimate.
        expected: What it is held against.
        family: Number of questions that Holm's correction is over; its strictest step counts.

    Returns:
        The number, with a power of 80 % for a t test; None if more than `MOST_COPIES` times the units are needed.
    """
    edge = expected.nearest(found.value)
    if found.bounds_of_copies is None:
        distance = abs(found.value - edge)
        if not found.sd or not distance:
            return None
        needed = units_needed(distance, found.sd, comparisons=family)
        return None if needed is None or needed > MOST_COPIES * found.units else max(needed, found.units + 1)
    for copies in range(2, MOST_COPIES + 1):
        low, high = found.bounds_of_copies(copies, 1 - LEVEL / 2 / family)
        if _leaves_out(expected, edge, replace(found, low=low, high=high)):
            return copies * found.units
    return None


def corrected(estimates: Sequence[Estimate | None]) -> list[Estimate | None]:
    """The same with `p_adjusted` by Holm over all of them together."""
    adjusted = holm([None if one is None else one.p for one in estimates])
    return [None if one is None else replace(one, p_adjusted=p) for one, p in zip(estimates, adjusted)]


def verdict(expected: Expected, found: Estimate | None) -> str:
    """The word for one question, by the rule above."""
    if found is None:
        return ABSENT
    if found.note in (TOO_SHALLOW, TOO_FEW):
        return found.note
    edge = expected.nearest(found.value)
    shown = found.p_adjusted is not None and found.p_adjusted <= LEVEL
    out = _leaves_out(expected, edge, found)
    shown = shown or (found.over == "all" and out)
    if expected.side == "nothing":
        return DIFFERS if shown else LEANS if out else UNKNOWN
    for_it = expected.holds(found.value)
    if shown:
        return AGREES if for_it else CONTRADICTS
    if out:
        return LEANS_FOR if for_it else LEANS_AGAINST
    return UNKNOWN


def _leaves_out(expected: Expected, edge: float, found: Estimate) -> bool:
    """Whether the interval lies on one side of the edge; of `within`, inside both or beyond one."""
    if found.low is None or found.high is None:
        return False
    if expected.side == "within" and expected.holds(found.value):
        return -expected.edge < found.low and found.high < expected.edge
    return found.low > edge or found.high < edge


def together(words: Sequence[str]) -> str:
    """The word for a claim, of the words for its questions."""
    silent = (TOO_FEW, TOO_SHALLOW, ABSENT)
    told = [word for word in words if word not in silent]
    if not told:
        return next((word for word in silent if word in words), ABSENT)
    if set(words) == {AGREES}:
        return AGREES
    if set(words) == {CONTRADICTS}:
        return CONTRADICTS
    if set(words) == {DIFFERS}:
        return DIFFERS
    if AGREES in told and CONTRADICTS in told:
        return MIXED
    if AGREES in told:
        return IN_PART
    if CONTRADICTS in told:
        return AGAINST_IN_PART
    if DIFFERS in told:
        return f"{DIFFERS} in part"
    return UNKNOWN


def opposite(estimates: Sequence[Estimate | None]) -> str:
    """Does a contrast depend on the model?  Reproduced if two models lie significantly on opposite sides of 0.

    The opposite cannot be shown in this way: all on one side, or not different from 0, is `undecided`.
    """
    there = [one for one in estimates if one is not None]
    if len(there) < 2:
        return ABSENT
    signs = {one.value > 0 for one in there if verdict(NOTHING, one) == DIFFERS}
    if len(signs) == 2:
        return AGREES
    leaning = {one.value > 0 for one in there if verdict(NOTHING, one) in (DIFFERS, LEANS)}
    return LEANS_FOR if len(leaning) == 2 else UNKNOWN
