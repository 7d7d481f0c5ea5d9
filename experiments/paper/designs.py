"""Which studies of studies/organism/ are run, in which order, and how much of each: the full design, or a part of it.

Knows study files; runs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from undersong.study import Study, load_studies, with_models

STUDIES = Path(__file__).parents[2] / "studies" / "organism"
# What others have in common comes first, so that a killed run leaves the most behind.
FILES = (
    "pretrained",
    "sdqa",
    "distant",
    "system",
    "bbh",
    "cross_modal",
    "mechanism",
    "noise",
    "dose",
    "targets",
    "rate",
)


@dataclass(frozen=True)
class Design:
    """What is laid over every study file, and how many bases of each architecture are taken; None: all."""

    name: str
    says: str
    sets: tuple[str, ...] = ()
    bases: int | None = None

    def studies(self, file: str) -> list[Study]:
        """The studies of a file in this design, an architecture each."""
        found = load_studies(STUDIES / f"{file}.yaml", self.sets).studies
        return [with_models(one, *one.models[: self.bases]) for one in found]


FULL = Design("full", "25, 50 and 75% of the pool, three bases of each architecture, five training seeds")
REDUCED = Design(
    "reduced",
    "25% of the pool, one base of each architecture, three training seeds",
    ("selection.fractions=[0.25]", "tuning.seeds=[0,1,2]", "tuning.draws=[0,1,2]"),
    bases=1,
)
DESIGNS = {design.name: design for design in (REDUCED, FULL)}
