"""Store for plans: runs the stages of an audit and records which artifacts exist and which would be made. Loads no
model and makes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.models.load_options import LoadOptions
from undersong.stages.context import Corpus, RunContext
from undersong.store.draft import Draft
from undersong.store.store import Artifact, Inputs, Store
from undersong.study.arm_selection import (
    ArmRule,
    ProximityArtifacts,
    compute_selection,
    read_selection,
    selection_artifact,
)
from undersong.study.audit import audit_model, load_corpora
from undersong.study.checks import check_models
from undersong.study.inputs import check_study_inputs
from undersong.study.results.records import ModelRecord
from undersong.study.schema import Study

if TYPE_CHECKING:
    from undersong.proximity.selection import Selection


@dataclass(frozen=True)
class PlannedArtifact:
    """Artifact of a study: its work, its class of comparable artifacts, and its location if it exists."""

    stage: str
    cost_class: tuple[str, ...]  # artifacts of one class have the same cost per unit of work
    work: int
    existing: Artifact | None
    expected: Artifact  # the artifact as it is or would be
    progress_line: str  # progress line of the run before it makes the artifact
    reply_batches: tuple[tuple[str, int], ...] = ()  # for replies: (set, token limit)
    judges: tuple[str, ...] = ()  # for verdicts

    @property
    def model(self) -> str:
        """Hash of the model it is made with; empty if there is none."""
        return self.cost_class[1]

    @property
    def encoder(self) -> str:
        """Canonical spec of the encoder, for embeddings."""
        return self.cost_class[2]


class PlanningStore:
    """Store that returns the artifact each stage would make, and records which ones exist."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.planned: dict[str, PlannedArtifact] = {}  # by key: artifacts that two arms share are planned once
        self.unscreened_axes: list[str] = []  # axes whose selections are not known yet
        self.models: list[ModelRecord] = []  # with the artifacts of their runs, as they are or would be
        self.notes: list[str] = []  # on columns of the corpora
        self._progress_line = ""

    def say(self, line: str) -> None:
        """Record the run's progress line."""
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
        """Artifact as it is or would be; its folder may not exist.

        Args:
            stage: Name of the stage.
            version: Version of the stage.
            config: Options that the artifact depends on.
            inputs: Artifacts and hashes that it depends on.
            make: Not called.
            seed: Not used.
            packages: Not used.
        """
        expected = self.store.locate(stage, version, config, inputs)
        existing = self.store.find(stage, version, config, inputs)
        cost_class = (
            stage,
            str(inputs.get("model", "")),
            str(config.get("encoder", "")),
            str(config.get("modality", "")),
        )
        if expected.hash not in self.planned:  # the first stage to request it would make it
            self.planned[expected.hash] = PlannedArtifact(
                stage,
                cost_class,
                _work_units(stage, config),
                existing,
                expected,
                self._progress_line,
                _reply_batches(stage, config),
                _verdict_judges(stage, config),
            )
        return expected


def plan_artifacts(study: Study, store_root: str | Path, loading: LoadOptions, unread: bool = False) -> PlanningStore:
    """Plan every artifact that `run` would request from this store.

    Args:
        study: The study.
        store_root: Folder of the store.
        loading: Loading options of the models.
        unread: Identify corpora that are not on this machine by their names; no artifact made from them is found.

    Raises:
        UndersongError: A corpus, model or encoder is invalid.
    """
    planning_store = PlanningStore(Store(store_root))
    ctx = RunContext(planning_store, loading, planning_store.say, unread=unread, note=planning_store.notes.append)
    check_models(study, local_only=True)
    check_study_inputs(study)
    record = load_corpora(study, ctx)
    for base_seed, ref in enumerate(study.models):
        planning_store.say(ref)
        selections = partial(_planned_selection, ctx, record.pool, planning_store.unscreened_axes)
        planning_store.models.append(ModelRecord(ref, base_seed, ctx.features(ref)))
        audit_model(ctx, record, planning_store.models[-1], selections)
    return planning_store


def _planned_selection(
    ctx: RunContext, pool: Corpus, unscreened_axes: list[str], proximities: ProximityArtifacts, rule: ArmRule, draw: int
) -> Selection:
    """Selection as far as it is known: stored, made here from stored distances, or a placeholder without ids."""
    from undersong.proximity.selection import Selection

    artifact = selection_artifact(ctx, pool, proximities, rule, draw)
    if artifact.location.exists():
        return read_selection(artifact)
    if all(table.location.exists() for table in proximities.values()):
        return compute_selection(pool, proximities, rule, draw)
    unscreened_axes.append(rule.axis)
    placeholder_hash = hashlib.sha256(f"not selected yet: {artifact.hash}".encode()).hexdigest()
    return Selection(rule.axis, "", rule.selection_rule.kind, 0.0, 0, None, (), placeholder_hash)


def _work_units(stage: str, config: Any) -> int:
    """Units of work of an artifact: training samples of an adapter, prompt sets of replies and verdicts, else one."""
    if stage == "adapter":
        return int(config["recipe"]["batch_size"]) * int(max(config["recipe"]["save_steps"]))
    return len(config["sets"]) if stage in ("replies", "verdicts") else 1


def _reply_batches(stage: str, config: Any) -> tuple[tuple[str, int], ...]:
    """Prompt sets and token limits of replies, from `PromptSetRequest.key`."""
    return tuple((key[0], int(key[-1][1])) for key in config["sets"]) if stage == "replies" else ()


def _verdict_judges(stage: str, config: Any) -> tuple[str, ...]:
    """Judges of verdicts: each set's own judge, or the study's."""
    if stage != "verdicts":
        return ()
    return tuple(dict.fromkeys(set_judge or config["judge"] for *_, set_judge in config["sets"]))
