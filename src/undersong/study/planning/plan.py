"""What `undersong run` would do, how far a study is, and the estimated CPU time, from a planning store. Loads no
model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.stages.black_box_models import trainable_models
from undersong.store.store import IN_PROGRESS, INTERRUPTED, Store, artifact_state
from undersong.study.planning.cost import UNKNOWN_THROUGHPUT, GpuThroughput, absent_corpora_lines, gpu_cost_lines
from undersong.study.planning.dependencies import missing_package_lines
from undersong.study.planning.planning_store import PlannedArtifact, PlanningStore, plan_artifacts
from undersong.study.results.notes import benign_reference_notes
from undersong.study.schema import Study
from undersong.types import UndersongError


def other_loading_lines(
    study: Study, planning_store: PlanningStore, loading: LoadOptions, unread: bool = False
) -> tuple[str, ...]:
    """Sentences about other loading options under which the store holds artifacts that the study lacks.

    Args:
        study: The study.
        planning_store: Plan of the study with `loading`.
        loading: Loading options of the plan.
        unread: As in `plan_artifacts`.
    """
    if all(artifact.existing is not None for artifact in planning_store.planned.values()):
        return ()
    lines = []
    for other in _stored_loadings(planning_store.store):
        if other.cache_key == loading.cache_key:
            continue
        try:
            other_plan = plan_artifacts(study, planning_store.store.root, other, unread)
        except UndersongError:  # such as a rule that keeps nothing with these options
            continue
        artifact_count = sum(
            artifact.existing is not None
            for key, artifact in other_plan.planned.items()
            if key not in planning_store.planned
        )
        if artifact_count:
            options = _format_loading(other, loading)
            lines.append(f"The store holds {artifact_count} of these made with {options}; pass {options} to see them.")
    return tuple(lines)


def _stored_loadings(store: Store) -> Iterator[LoadOptions]:
    """Yield the loading options of feature artifacts in the store: features are the first stage of any model."""
    keys = []
    for config in store.configs("features"):
        key = config.get("loading") if isinstance(config, dict) else None
        if isinstance(key, dict) and key.keys() == DEFAULT_LOAD_OPTIONS.cache_key.keys() and key not in keys:
            keys.append(key)
            yield LoadOptions(dtype=key["dtype"], attention=key["attention"], quantize=key["quantize"])


def _format_loading(loading: LoadOptions, requested: LoadOptions) -> str:
    """Return loading options in the spelling of the command line, compared with the requested ones.

    Options whose default is needed have no spelling; they are listed as options to leave out.
    """
    options = {"--attention": loading.attention, "--quantize": loading.quantize}
    requested_options = {"--attention": requested.attention, "--quantize": requested.quantize}
    arguments = [
        f"--dtype {loading.dtype}",
        *(f"{name} {value}" for name, value in options.items() if value is not None),
    ]
    omitted = [name for name, value in requested_options.items() if value is not None and options[name] is None]
    return " ".join(arguments) + (f" without {' and '.join(omitted)}" if omitted else "")


# CPU seconds per unit of work (see `PlannedArtifact`): means of two runs of the demo study, so they hold only for the
# packaged organism and its corpora. The first features artifact also pays for importing torch. The order is that of the
# rows.
ORGANISM_SECONDS = {
    "corpus": 0.4,
    "features": 1.4,
    "embeddings": 0.9,
    "gradients": 7.0,
    "base_replies": 0.2,
    "refusal_tokens": 0.3,
    "sample_vectors": 7.0,  # 13 by gradients, 1 by forward passes
    "reference_vectors": 1.0,
    "proximity": 0.03,
    "selection": 0.01,
    "adapter": 0.008,
    "replies": 0.2,
    "verdicts": 0.003,
    "comprehension": 0.05,
    "direction": 0.15,
    "projections": 0.8,
    "states": 0.2,
}
ORGANISM = "organism:"


@dataclass(frozen=True)
class PlanRow:
    """Stage of a plan: number of artifacts, number in the store, and CPU seconds for the others (or "unknown")."""

    stage: str
    total: int
    done: int
    cost: str


@dataclass(frozen=True)
class StudyPlan:
    """Plan of a study; `summary` sums it up and says what is unknown."""

    rows: tuple[PlanRow, ...]
    summary: str
    remarks: tuple[str, ...] = ()  # corpora that are absent or used twice; disk and GPU hours of models
    other_loadings: tuple[str, ...] = ()  # other loading options under which the store holds some of the study
    missing_packages: tuple[str, ...] = ()  # packages that are not installed, and how to install them


def plan_study(
    study: Study,
    store_root: str | Path,
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS,
    unread: bool = False,
    throughput: GpuThroughput = UNKNOWN_THROUGHPUT,
) -> StudyPlan:
    """Plan what `run` would do with this study and store.

    Args:
        study: The study.
        store_root: Folder of the store.
        loading: Loading options of the models.
        unread: Plan with corpora that are not on this machine.
        throughput: Throughput of a GPU, as the user assumes it.

    Raises:
        UndersongError: A corpus, model or encoder is invalid.
    """
    planning_store = plan_artifacts(study, store_root, loading, unread)
    absent = absent_corpora_lines(study) if unread else []
    cost_remarks = [] if _is_packaged(study) else gpu_cost_lines(study, planning_store, throughput)
    return replace(
        summarize_plan(study, planning_store),
        remarks=(*planning_store.notes, *benign_reference_notes(study), *absent, *cost_remarks),
        other_loadings=other_loading_lines(study, planning_store, loading, unread),
        missing_packages=missing_package_lines(study, planning_store),
    )


def summarize_plan(study: Study, planning_store: PlanningStore) -> StudyPlan:
    """Summarize a planning store by stages, with the cost of artifacts still to be made."""
    planned = list(planning_store.planned.values())
    costs = _costs_by_stage(planned, packaged=_is_packaged(study))
    rows = tuple(
        _plan_row(stage, planned, costs) for stage in dict.fromkeys((*ORGANISM_SECONDS, *costs)) if stage in costs
    )
    return StudyPlan(rows, _plan_summary(rows, costs, bool(planning_store.unscreened_axes), planning_store.store.root))


def memory_lines(study: Study, loading: LoadOptions) -> list[str]:
    """Lines about the memory that each model's weights need and that is available; reads configs only."""
    refs = [ref for ref in trainable_models(study.models) if not ref.startswith(ORGANISM)]
    if not refs:
        return []
    from undersong.models.memory import memory_summary
    from undersong.models.refs import resolve_model

    lines = []
    for ref in refs:
        try:
            source, options, family = resolve_model(ref)
            lines.append(memory_summary(ref, source, options, family, loading))
        except UndersongError as error:  # a plan works without a network too
            lines.append(f"{ref}: memory unknown. {error}")
    return lines


def _is_packaged(study: Study) -> bool:
    """True if all models and corpora ship with the package, so that `ORGANISM_SECONDS` holds."""
    return all(ref.startswith(ORGANISM) for ref in (*study.models, *study.corpora))


def _costs_by_stage(planned: Sequence[PlannedArtifact], packaged: bool) -> dict[str, float | None]:
    """Remaining CPU seconds by stage, from comparable artifacts, else from `ORGANISM_SECONDS`, else None."""
    cost_classes: dict[tuple[str, ...], list[PlannedArtifact]] = defaultdict(list)
    for artifact in planned:
        cost_classes[artifact.cost_class].append(artifact)
    costs: dict[str, float | None] = {}
    for cost_class, members in cost_classes.items():
        remaining_seconds = _remaining_seconds(cost_class[0], members, packaged)
        so_far = costs.get(cost_class[0], 0.0)
        costs[cost_class[0]] = None if remaining_seconds is None or so_far is None else so_far + remaining_seconds
    return costs


def _remaining_seconds(stage: str, members: Sequence[PlannedArtifact], packaged: bool) -> float | None:
    """CPU seconds for the missing artifacts of one kind."""
    missing_work = sum(artifact.work for artifact in members if artifact.existing is None)
    done_work = sum(artifact.work for artifact in members if artifact.existing is not None)
    if missing_work == 0:
        return 0.0
    if done_work:
        return (
            missing_work
            / done_work
            * sum(
                artifact.existing.provenance()["cpu_seconds"] for artifact in members if artifact.existing is not None
            )
        )
    return missing_work * ORGANISM_SECONDS[stage] if packaged and stage in ORGANISM_SECONDS else None


def _plan_row(stage: str, planned: Sequence[PlannedArtifact], costs: dict[str, float | None]) -> PlanRow:
    stage_artifacts = [artifact for artifact in planned if artifact.stage == stage]
    seconds = costs[stage]
    cost = "unknown" if seconds is None else f"{seconds:.0f}" if seconds >= 1 or seconds == 0 else "below 1"
    return PlanRow(
        stage, len(stage_artifacts), sum(artifact.existing is not None for artifact in stage_artifacts), cost
    )


def _plan_summary(rows: Sequence[PlanRow], costs: dict[str, float | None], is_unscreened: bool, root: Path) -> str:
    total, done = sum(row.total for row in rows), sum(row.done for row in rows)
    if done == total:
        return f"All {total} artifacts are in {root}: `run` would only write the results again."
    known_seconds = sum(seconds for seconds in costs.values() if seconds is not None)
    unknown_stages = [stage for stage, seconds in costs.items() if seconds is None]
    parts = [f"{total - done} of {total} artifacts are to be made"]
    if known_seconds or not unknown_stages:
        parts.append(f", some {known_seconds:.0f} CPU seconds")
        parts.append(f" without {', '.join(unknown_stages)}, whose cost is unknown" if unknown_stages else "")
    else:
        parts.append("; their cost is unknown")
    if unknown_stages:
        parts.append(
            f" because {root} holds no comparable artifacts: `undersong run STUDY --arm base` makes some, and then a "
            "plan knows more"
        )
    parts.append(".")
    if is_unscreened:
        parts.append(
            " The counts from training on are upper limits until the pool is screened, because arms with the same "
            "samples are one."
        )
    return "".join(parts)


@dataclass(frozen=True)
class StudyStatus:
    """Progress of a study.

    `in_progress` and `interrupted` have a line for each artifact that is being made, or that a killed process left
    incomplete. `other_loadings` has a sentence for each other set of loading options under which the store holds some
    of the study.
    """

    rows: tuple[PlanRow, ...]
    in_progress: tuple[str, ...]
    interrupted: tuple[str, ...]
    summary: str
    other_loadings: tuple[str, ...]


def study_status(study: Study, store_root: str | Path, loading: LoadOptions = DEFAULT_LOAD_OPTIONS) -> StudyStatus:
    """Status of a study in its store, and what is being made there.

    Raises:
        UndersongError: As `plan_study`.
    """
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
        plan.rows, in_progress, interrupted, plan.summary, other_loading_lines(study, planning_store, loading)
    )


def _artifact_line(artifact: PlannedArtifact) -> str:
    """Artifact with the progress line of the run that makes it."""
    return f"{artifact.stage} of {artifact.progress_line or 'all models'}"
