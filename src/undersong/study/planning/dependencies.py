"""Packages that a study still needs and that are not installed, for axes, judges and served models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from undersong.extras import check_model_packages, check_package
from undersong.settings.judge_names import split_judge
from undersong.stages.black_box_models import SERVED, is_black_box, model_identity_hash
from undersong.stages.context import RunContext
from undersong.store.store import Store
from undersong.study.planning.planning_store import PlannedArtifact, PlanningStore, plan_artifacts
from undersong.study.schema import Study
from undersong.types import UndersongError


@dataclass(frozen=True)
class PackageRequirement:
    """Package check for artifacts of one stage."""

    name: str  # name in messages, without an address, which may be a secret
    check: Callable[[], None]  # raises UndersongError if the package is missing
    stage: str
    key: str  # encoder, judge or model that makes an artifact of the stage; empty: whatever makes it

    @property
    def missing_reason(self) -> str:
        """Message about the missing package; empty if nothing is missing."""
        try:
            self.check()
        except UndersongError as error:
            return f"{self.name}: {error}"
        return ""

    def is_needed(self, planning_store: PlanningStore) -> bool:
        """True if an artifact that is still to be made needs it."""
        missing_artifacts = (
            artifact
            for artifact in planning_store.planned.values()
            if artifact.stage == self.stage and artifact.existing is None
        )
        return any(not self.key or self.key in _made_by(artifact) for artifact in missing_artifacts)


def missing_package_lines(study: Study, planning_store: PlanningStore) -> tuple[str, ...]:
    """Sentences about missing packages: what needs each, and how to install it."""
    return tuple(
        requirement.missing_reason
        for requirement in _unmet_requirements(study)
        if requirement.is_needed(planning_store)
    )


def check_dependencies(study: Study, ctx: RunContext) -> None:
    """Check the packages of a study, so that it does not fail in the middle.

    Raises:
        UndersongError: A package is missing that is needed for an artifact still to be made.
    """
    if not isinstance(ctx.store, Store) or not _unmet_requirements(study):
        return
    if lines := missing_package_lines(study, plan_artifacts(study, ctx.store.root, ctx.loading)):
        raise UndersongError(lines[0])


def _unmet_requirements(study: Study) -> list[PackageRequirement]:
    return [requirement for requirement in _study_requirements(study) if requirement.missing_reason]


def _study_requirements(study: Study) -> Iterator[PackageRequirement]:
    from undersong.encoders.registry import check_installed
    from undersong.encoders.spec import parse_encoder
    from undersong.evaluation.judges.registry import check_judge_installed
    from undersong.evaluation.serving.served_model import check_served_dependencies

    for axis, spec in study.axes.items():
        yield PackageRequirement(
            f"Axis {axis}", partial(check_installed, spec), "embeddings", parse_encoder(spec).canonical
        )
    set_judges = (prompt_set.judge for prompt_set in study.prompt_sets.values() if prompt_set.judge)
    for judge in dict.fromkeys((study.evaluation.judge, *study.evaluation.extra_judges, *set_judges)):
        yield PackageRequirement(
            f"Judge {split_judge(judge)[0]}", partial(check_judge_installed, judge), "verdicts", judge
        )
    for ref in study.models:
        if ref.startswith(SERVED):
            yield PackageRequirement(
                "Models", partial(check_served_dependencies, ref), "replies", model_identity_hash(ref)
            )
        elif not is_black_box(ref):
            yield PackageRequirement("Models", check_model_packages, "replies", "")
            yield PackageRequirement(
                "Fine-tuned models", partial(check_package, "statsmodels", "combining runs"), "adapter", ""
            )


def _made_by(artifact: PlannedArtifact) -> tuple[str, ...]:
    """Encoder, judges or model that make an artifact, as in `PackageRequirement.key`."""
    return {"embeddings": (artifact.encoder,), "verdicts": artifact.judges, "replies": (artifact.model,)}.get(
        artifact.stage, ()
    )
