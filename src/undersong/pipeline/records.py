"""What an audit brought: plain records of artefacts, for results to be made of.  Knows no stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from undersong.pipeline.stages.arms import Arm
from undersong.pipeline.workshop import Corpus
from undersong.store import Artefact
from undersong.study import Study

if TYPE_CHECKING:
    from undersong.proximity import Selection


@dataclass(frozen=True)
class Defended:
    """What was done to an arm by a study's defense of that name, in artefacts.

    `losses`: of the base, the undefended arm and the defended one, on benign samples that neither was trained on; not
    of an arm that was tuned `again` after that.
    """

    name: str
    changes: tuple[str, ...]
    trained: Artefact
    altered: Artefact | None
    steering: Artefact | None
    losses: tuple[Artefact, ...]
    again: bool = False


@dataclass(frozen=True)
class RunRecord:
    """One measured point: an arm at a step, with its artefacts."""

    arm: Arm
    step: int
    adapter: Artefact | None
    replies: Artefact
    verdicts: Artefact
    also: tuple[tuple[str, Artefact], ...] = ()  # further judges and their verdicts
    defense: Defended | None = None
    repeated: Artefact | None = None  # what is said back of harmful requests, where the study tells what was heard
    comprehension: Artefact | None = None  # what was heard, and what replies are about


@dataclass
class ModelRecord:
    """What one base brought: its axes' tables, its selections, its runs and its mechanism."""

    ref: str
    base_seed: int
    features: dict[str, Artefact] = field(default_factory=dict)  # by corpus artefact: what was heard of it
    embeddings: dict[str, tuple[Artefact, Artefact]] = field(default_factory=dict)  # pool, first harm set
    vectors: list[Artefact] = field(default_factory=list)  # of every corpus on every axis
    measured: dict[tuple[str, str], Artefact] = field(default_factory=dict)  # (axis, harm set) -> proximity
    calm: dict[str, Artefact] = field(default_factory=dict)  # axis -> proximity of harmless speech to the first set
    selections: dict[str, Selection] = field(default_factory=dict)
    runs: list[RunRecord] = field(default_factory=list)
    defended: list[RunRecord] = field(default_factory=list)
    projections: list[tuple[Arm, int, str, Artefact]] = field(default_factory=list)

    @property
    def proximity(self) -> dict[str, Artefact]:
        """Axis -> proximity to the first harm set."""
        first = next(iter(self.measured))[1] if self.measured else ""
        return {axis: found for (axis, to), found in self.measured.items() if to == first}


@dataclass
class AuditRecord:
    """Everything a report is made of."""

    study: Study
    pool: Corpus
    harm: dict[str, Corpus]  # reference harm sets
    sets: dict[str, Corpus]
    models: list[ModelRecord]
    harmless: Corpus | None = None
    overlap: list[tuple[str, str, str, int]] = field(default_factory=list)  # corpus, other, kind, pairs
    defending: dict[str, Corpus] = field(default_factory=dict)  # by its name: what defenses train on or watch
    contrast: dict[str, Corpus] = field(default_factory=dict)  # harmful, harmless: what is fitted on

    @property
    def reference(self) -> Corpus:
        """The harm set that is selected by where a rule names no other."""
        return next(iter(self.harm.values()))

    @property
    def corpora(self) -> list[Corpus]:
        """All that a base hears: pool, harm sets, harmless speech, prompt sets."""
        calm = [self.harmless] if self.harmless is not None else []
        return [self.pool, *self.harm.values(), *calm, *self.sets.values()]
