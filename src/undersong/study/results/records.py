"""Records of an audit: artifacts of every corpus, model, arm and run, from which results are computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from undersong.stages.context import Corpus
from undersong.stages.prompt_sets import PromptSetRequest
from undersong.stages.training import StudyArm
from undersong.store.store import Artifact
from undersong.study.schema import Study

if TYPE_CHECKING:
    from undersong.proximity.selection import Selection


@dataclass(frozen=True)
class DefenseArtifacts:
    """Artifacts that one defense of a study made for an arm.

    `losses` are those of the base, the undefended arm and the defended arm on held-out benign samples. An arm that was
    tuned again after the defense (`again`) has none.
    """

    name: str
    changes: tuple[str, ...]
    trained_adapter: Artifact
    edited_adapter: Artifact | None
    steering: Artifact | None
    losses: tuple[Artifact, ...]
    again: bool = False


@dataclass(frozen=True)
class RunRecord:
    """One measured point: an arm at a step, with its artifacts."""

    arm: StudyArm
    step: int
    adapter: Artifact | None
    replies: Artifact
    verdicts: Artifact
    other_verdicts: tuple[tuple[str, Artifact], ...] = ()  # further judges and their verdicts
    defense: DefenseArtifacts | None = None
    repetitions: Artifact | None = None  # repetitions of harmful requests, if comprehension is checked
    comprehension: Artifact | None = None  # comprehension measurements


@dataclass
class ModelRecord:
    """Artifacts of one base model: features, embeddings, proximities, selections, runs and projections."""

    ref: str
    base_seed: int
    features: dict[str, Artifact] = field(default_factory=dict)  # audio features by corpus artifact
    embeddings: dict[str, tuple[Artifact, Artifact]] = field(default_factory=dict)  # pool, first harm set
    vectors: list[Artifact] = field(default_factory=list)  # of every corpus on every axis
    proximities: dict[tuple[str, str], Artifact] = field(default_factory=dict)  # (axis, harm set) -> proximity
    benign_proximity: dict[str, Artifact] = field(
        default_factory=dict
    )  # axis -> proximity of benign speech to the first harm set
    selections: dict[str, Selection] = field(default_factory=dict)
    runs: list[RunRecord] = field(default_factory=list)
    defended_runs: list[RunRecord] = field(default_factory=list)
    projections: list[tuple[StudyArm, int, str, Artifact]] = field(default_factory=list)

    @property
    def proximity(self) -> dict[str, Artifact]:
        """Proximity to the first harm set, by axis."""
        first_set = next(iter(self.proximities))[1] if self.proximities else ""
        return {axis: artifact for (axis, harm_set), artifact in self.proximities.items() if harm_set == first_set}


@dataclass
class AuditRecord:
    """Everything that the results and the report of an audit are made from."""

    study: Study
    pool: Corpus
    harm: dict[str, Corpus]  # reference harm sets
    sets: dict[str, Corpus]
    models: list[ModelRecord]
    benign_reference: Corpus | None = None
    overlap: list[tuple[str, str, str, int]] = field(default_factory=list)  # corpus, other, kind, pairs
    defense_corpora: dict[str, Corpus] = field(default_factory=dict)  # by its name: what defenses train on or watch
    contrast_corpora: dict[str, Corpus] = field(default_factory=dict)  # harmful and benign, to fit directions on

    @property
    def reference(self) -> Corpus:
        """The harm set that is selected by where a rule names no other."""
        return next(iter(self.harm.values()))

    @property
    def corpora(self) -> list[Corpus]:
        """All corpora that a base encodes: pool, harm sets, benign speech and prompt sets."""
        baseline = [self.benign_reference] if self.benign_reference is not None else []
        return [self.pool, *self.harm.values(), *baseline, *self.sets.values()]


@dataclass(frozen=True)
class ArmReplies:
    """Prompts given to an arm at one step, and its replies."""

    arm: StudyArm
    step: int
    adapter: Artifact | None
    asked: list[PromptSetRequest]
    replies: Artifact
    defense: DefenseArtifacts | None = None
    repeated: Artifact | None = None  # repetitions of harmful requests, if comprehension is checked
