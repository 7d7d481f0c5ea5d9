"""What a store holds of a study under another loading.  Results are filed under how the model was loaded, so that a
forgotten --dtype looks as if nothing had been done.  Asks the ledger again, loads no model and reads provenance alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, Loading
from undersong.pipeline.planning.planning_store import PlanningStore, plan_artifacts
from undersong.store import Store
from undersong.study import Study
from undersong.types import UndersongError


def other_loading_lines(
    study: Study, planning_store: PlanningStore, loading: Loading, unread: bool = False
) -> tuple[str, ...]:
    """Where something of the study is missing, a sentence for each other loading that its store holds artefacts of.

    `ledger`, `unread`: of the study as it was asked, with `loading`.
    """
    if all(artifact.existing is not None for artifact in planning_store.planned.values()):
        return ()
    lines = []
    for other in _stored_loadings(planning_store.store):
        if other.cache_key == loading.cache_key:
            continue
        try:
            other_plan = plan_artifacts(study, planning_store.store.root, other, unread)
        except UndersongError:  # what stops the other one, a rule that keeps nothing there, is no fault of this one
            continue
        artifact_count = sum(
            artifact.existing is not None
            for key, artifact in other_plan.planned.items()
            if key not in planning_store.planned
        )
        if artifact_count:
            options = _format_loading(other, loading)
            lines.append(f"The store holds {artifact_count} of these made with {options}; say {options} to see them.")
    return tuple(lines)


def _stored_loadings(store: Store) -> Iterator[Loading]:
    """How models were loaded that heard something for this store: the first that any model does for a study."""
    keys = []
    for config in store.configs("features"):
        key = config.get("loading") if isinstance(config, dict) else None
        if isinstance(key, dict) and key.keys() == DEFAULT_LOAD_OPTIONS.cache_key.keys() and key not in keys:
            keys.append(key)
            yield Loading(dtype=key["dtype"], attn_implementation=key["attention"], quantize=key["quantize"])


def _format_loading(loading: Loading, requested: Loading) -> str:
    """A loading as verbs spell it, beside one that was asked: what is to be left out cannot be said by an option."""
    options = {"--attention": loading.attn_implementation, "--quantize": loading.quantize}
    requested_options = {"--attention": requested.attn_implementation, "--quantize": requested.quantize}
    arguments = [
        f"--dtype {loading.dtype}",
        *(f"{name} {value}" for name, value in options.items() if value is not None),
    ]
    omitted = [name for name, value in requested_options.items() if value is not None and options[name] is None]
    return " ".join(arguments) + (f" without {' and '.join(omitted)}" if omitted else "")
