"""Every claim answered: estimates of all organisms, corrected together, and the words for them.  Knows no page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.paper.agreement import Estimate, Expected, corrected, opposite, together, verdict
from experiments.paper.claims import CLAIMS, ORGANISMS, Claim
from experiments.paper.evidence import Evidence


@dataclass(frozen=True)
class Answer:
    """What one organism shows of a claim."""

    organism: str
    expected: Expected
    found: Estimate | None

    @property
    def word(self) -> str:
        return verdict(self.expected, self.found)


@dataclass(frozen=True)
class Answered:
    """A claim with its answers."""

    claim: Claim
    answers: tuple[Answer, ...]

    @property
    def word(self) -> str:
        """Of those organisms of whose architecture the paper says something; where it says nothing at all, of all."""
        said = [one for one in self.answers if one.expected.side != "nothing"]
        return together([one.word for one in said or self.answers])

    @property
    def is_measured(self) -> bool:
        """Whether an organism has an estimate."""
        return any(answer.found is not None for answer in self.answers)

    @property
    def depends(self) -> str:
        """The word for the claim that models differ in the contrast's sign."""
        return opposite([one.found for one in self.answers])


def answered(
    evidence: Evidence, claims: Sequence[Claim] = CLAIMS, organisms: Sequence[str] = tuple(ORGANISMS)
) -> list[Answered]:
    """Holm's correction is over all questions with something to agree with, and over the others by themselves."""
    places = [(claim, organism) for claim in claims for organism in organisms]
    found: dict[tuple[str, str], Estimate | None] = {}
    for silent in (False, True):
        family = [place for place in places if (place[0].expected[place[1]].side == "nothing") == silent]
        raw = [claim.contrast.estimate(evidence, name, claim.expected[name]) for claim, name in family]
        found |= {(claim.title, name): one for (claim, name), one in zip(family, corrected(raw))}
    return [
        Answered(claim, tuple(Answer(name, claim.expected[name], found[claim.title, name]) for name in organisms))
        for claim in claims
    ]
