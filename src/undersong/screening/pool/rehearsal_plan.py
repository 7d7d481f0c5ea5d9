"""Plan of a screening's rehearsal: its cost, before any model is loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from undersong.models.refs import resolve_model
from undersong.screening.pool.axis_choice import checked_axes
from undersong.screening.pool.checks import check_options, check_unused_audio
from undersong.screening.pool.inputs import read_corpora
from undersong.screening.pool.options import (
    ScreeningOptions,
    harm_sets_by_name,
    match_selection_ids,
    selection_rules,
)
from undersong.screening.pool.output import writable_screening_folder
from undersong.screening.pool.rehearsal import plan_sets, rehearsal_stage, untrainable_samples
from undersong.screening.pool.run import rank_pool, screening_key
from undersong.stages.context import RunContext
from undersong.stages.model_free_store import ModelFreeStore
from undersong.stages.rehearsal_cost import RehearsalCost
from undersong.types import UndersongError


def plan_screening(
    pool: str | Path, harm: str | Path | Mapping[str, str | Path], out: str | Path, options: ScreeningOptions
) -> RehearsalCost:
    """Cost of the rehearsal of `run_screening` with the same arguments. Loads no model, and writes nothing to `out`.

    The pool is read and ranked, because the sets to train on depend on it; `options.store` keeps that.

    Args:
        pool: Reference of the pool.
        harm: Reference of the harm set, or references by name.
        out: The output folder of the screening.
        options: Options of the screening.

    Raises:
        UndersongError: There is no rehearsal or no such model, the screening is not possible, or a ranking needs a
            network and is not in the store.
    """
    if not options.rehearse:
        raise UndersongError("--plan says what a rehearsal costs; add --rehearse STEPS, such as --rehearse 8.")
    harm_refs = harm_sets_by_name(harm)
    selection_rules(options)  # a wrong rule is an error before anything is read
    check_options(options, harm_refs, writable_screening_folder(Path(out)))
    match_selection_ids(options)
    assert options.model is not None, "checked above"
    resolve_model(options.model)  # a wrong name is an error here, as in every command that loads the model
    with _open_store(options) as store:
        ctx = RunContext(store, options.loading, options.progress)
        check_unused_audio(options, str(pool), harm_refs)
        corpora = read_corpora(ctx, str(pool), harm_refs, options)
        axes = checked_axes(corpora, options)
        stage = rehearsal_stage(ctx, corpora, options)
        key = screening_key(harm_refs, corpora, options)
        findings, _ = rank_pool(ctx, store, corpora, axes, options, key, untrainable_samples(stage))
        return plan_sets(stage, findings, options)


@contextmanager
def _open_store(options: ScreeningOptions) -> Iterator[ModelFreeStore]:
    """The store of the screening, or a temporary one."""
    if options.store is not None:
        yield ModelFreeStore(options.store)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield ModelFreeStore(folder)
