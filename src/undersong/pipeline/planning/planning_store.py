"""A store that plans: runs the stages of an audit and records which artifacts exist and which would be made.

Loads no model and makes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.models.load_options import LoadOptions
from undersong.pipeline.audit import audit_model, load_corpora
from undersong.pipeline.study_checks import check_models
from undersong.results.records import ModelRecord
from undersong.stages.context import Corpus, RunContext
from undersong.stages.selection import (
    ArmRule,
    ProximityArtifacts,
    compute_selection,
    read_selection,
    selection_artifact,
)
from undersong.store import Artifact, Draft, Store
from undersong.store.store import Inputs
from undersong.study import Study

if TYPE_CHECKING:
    from undersong.proximity import Selection


@dataclass(frozen=True)
class PlannedArtifact:
    """One artifact of the study: how much work it is, what it is comparable to, and where it is, if it is there."""

    stage: str
    cost_class: tuple[str, ...]  # artifacts of one kind cost alike a unit of work
    work: int
    existing: Artifact | None
    expected: Artifact  # as it is or would be
    progress_line: str  # what the run says before it makes it
    reply_batches: tuple[tuple[str, int], ...] = ()  # of replies: (set, most new tokens of each)
    judges: tuple[str, ...] = ()  # of verdicts

    @property
    def model(self) -> str:
        """The hash of the model it is made with; empty: none."""
        return self.cost_class[1]

    @property
    def encoder(self) -> str:
        """Of embeddings: the one spelling of what makes them."""
        return self.cost_class[2]


class PlanningStore:
    """Answers stages like a `Store`, with the artifact that each would make, and writes down what is there."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.planned: dict[str, PlannedArtifact] = {}  # by key: what two arms share is asked for once
        self.unscreened_axes: list[str] = []  # axes whose selections cannot be told yet
        self._progress_line = ""

    def say(self, line: str) -> None:
        """What the run would say: what it is about to do."""
        self._progress_line = line

    def get_or_make(
        self,
        stage: str,
        version: int | str,
        config: Any,
        inputs: Inputs,
        make: Callable[[Draft], None],
        *,
        seed: int | None = None,
        packages: Sequence[str] = (),
    ) -> Artifact:
        """The artifact as it is or would be; its folder may not be there."""
        expected = self.store.locate(stage, version, config, inputs)
        existing = self.store.find(stage, version, config, inputs)
        cost_class = (
            stage,
            str(inputs.get("model", "")),
            str(config.get("encoder", "")),
            str(config.get("modality", "")),
        )
        if expected.hash not in self.planned:  # who asks first would make it
            self.planned[expected.hash] = PlannedArtifact(
                stage, cost_class, _work_units(stage, config), existing, expected, self._progress_line,
                _reply_batches(stage, config), _verdict_judges(stage, config),
            )  # fmt: skip
        return expected


def plan_artifacts(study: Study, store_root: str | Path, loading: LoadOptions, unread: bool = False) -> PlanningStore:
    """Everything that `run` would ask of this store.  Errors: those of the study's corpora, models and encoders.

    `unread`: corpora that are not here stand for themselves by name, and nothing that is made of them is found.
    """
    planning_store = PlanningStore(Store(store_root))
    ctx = RunContext(planning_store, loading, planning_store.say, unread)
    check_models(study, local_only=True)
    record = load_corpora(study, ctx)
    for base_seed, ref in enumerate(study.models):
        planning_store.say(ref)
        selections = partial(_planned_selection, ctx, record.pool, planning_store.unscreened_axes)
        audit_model(ctx, record, ModelRecord(ref, base_seed, ctx.features(ref)), selections)
    return planning_store


def _planned_selection(
    ctx: RunContext, pool: Corpus, unscreened_axes: list[str], proximities: ProximityArtifacts, rule: ArmRule, draw: int
) -> Selection:
    """The selection as far as the store can tell: kept, drawn here from kept distances, or a stand-in without ids."""
    from undersong.proximity import Selection

    artifact = selection_artifact(ctx, pool, proximities, rule, draw)
    if artifact.path.exists():
        return read_selection(artifact)
    if all(table.path.exists() for table in proximities.values()):
        return compute_selection(pool, proximities, rule, draw)
    unscreened_axes.append(rule.axis)
    placeholder_hash = hashlib.sha256(f"not selected yet: {artifact.hash}".encode()).hexdigest()
    return Selection(rule.axis, "", rule.selection_rule.kind, 0.0, 0, None, (), placeholder_hash)


def _work_units(stage: str, config: Any) -> int:
    """Units that the cost of an artifact grows with: training pairs of an adapter, prompt sets of replies, else one."""
    if stage == "adapter":
        return int(config["recipe"]["batch"]) * int(max(config["recipe"]["steps"]))
    return len(config["sets"]) if stage in ("replies", "verdicts") else 1


def _reply_batches(stage: str, config: Any) -> tuple[tuple[str, int], ...]:
    """What replies are to; as `stages.Asked.key` says it."""
    return tuple((key[0], int(key[-1][1])) for key in config["sets"]) if stage == "replies" else ()


def _verdict_judges(stage: str, config: Any) -> tuple[str, ...]:
    """Whose verdicts these are: of every set the judge that it has of its own, or the study's."""
    if stage != "verdicts":
        return ()
    return tuple(dict.fromkeys(set_judge or config["judge"] for *_, set_judge in config["sets"]))
