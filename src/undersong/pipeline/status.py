"""How far a study is, while it runs or after, told from a ledger and from who holds which lock.  Loads no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, Loading
from undersong.pipeline.otherwise import other_loading_lines
from undersong.pipeline.planning.plan import PlanRow, summarize_plan
from undersong.pipeline.planning.planning_store import PlannedArtifact, plan_artifacts
from undersong.store import IN_PROGRESS, INTERRUPTED, artifact_state
from undersong.study import Study


@dataclass(frozen=True)
class StudyStatus:
    """`making`, `left`: a line for each artefact that is being made, and that a killed process left half-made;
    `otherwise`: a sentence for each other loading that the store holds some of the study under."""

    rows: tuple[PlanRow, ...]
    in_progress: tuple[str, ...]
    interrupted: tuple[str, ...]
    summary: str
    other_loadings: tuple[str, ...]


def study_status(study: Study, store_root: str | Path, loading: Loading = DEFAULT_LOAD_OPTIONS) -> StudyStatus:
    """What of the study is in its store, and what somebody is making there.  Errors: as of `plan_of`."""
    planning_store = plan_artifacts(study, store_root, loading)
    plan = summarize_plan(study, planning_store)
    states = [
        (artifact_state(artifact.expected), artifact)
        for artifact in planning_store.planned.values()
        if artifact.existing is None
    ]
    in_progress, interrupted = (
        tuple(_artifact_line(artifact) for state, artifact in states if state == wanted_state)
        for wanted_state in (IN_PROGRESS, INTERRUPTED)
    )
    return StudyStatus(
        plan.rows, in_progress, interrupted, plan.sentence, other_loading_lines(study, planning_store, loading)
    )


def _artifact_line(artifact: PlannedArtifact) -> str:
    """What it is, by the words of the run that makes it."""
    return f"{artifact.stage} of {artifact.progress_line or 'all models'}"
