"""Which artifacts of a store a study needs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from undersong.models.load_options import LoadOptions
from undersong.store.inventory import StoredFolder, with_inputs
from undersong.study.planning.planning_store import plan_artifacts
from undersong.study.schema import Study
from undersong.types import UndersongError


def folders_of_study(
    study: Study, root: str | Path, folders: Collection[StoredFolder], loading: LoadOptions
) -> set[tuple[str, str]]:
    """Stage and name of the artifacts that a study asks for, and of all that these were made from.

    Args:
        study: The study.
        root: Folder of the store.
        folders: What the store holds.
        loading: Loading options of its run.

    Raises:
        UndersongError: The store cannot say what the study needs, because it holds nothing of it, or not its screening.
    """
    planning_store = plan_artifacts(study, root, loading)
    planned = planning_store.planned.values()
    if not any(artifact.stage == "corpus" and artifact.existing for artifact in planned) or not any(
        artifact.existing for artifact in planned if artifact.stage != "corpus"
    ):
        raise UndersongError(
            f"The store {root} holds nothing of study {study.study}, so what it needs is not known; give the study "
            "file and the loading options of its run."
        )
    if planning_store.unscreened_axes:
        raise UndersongError(
            f"The store {root} does not hold the screening of study {study.study} on axis "
            f"{planning_store.unscreened_axes[0]}, so the adapters it needs are not known; run the study first."
        )
    return with_inputs([(item.stage, item.expected.hash[:20]) for item in planned], folders)
