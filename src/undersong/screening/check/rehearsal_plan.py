"""Plan of a check's rehearsal: its cost, before any model is loaded."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from undersong.models.refs import resolve_model
from undersong.screening.check.axis_choice import check_named_axes
from undersong.screening.check.inputs import CheckInputs
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.rehearsals import check_harmful_answers, planned_rehearsals
from undersong.screening.check.run import run_context, transcribed_data
from undersong.screening.check.sample_axes import SampleAxes
from undersong.stages.model_free_store import ModelFreeStore
from undersong.stages.rehearsal_cost import RehearsalCost
from undersong.types import UndersongError


def plan_check(request: CheckRequest) -> RehearsalCost:
    """Cost of the rehearsal of `run_check` with the same request. Loads no model.

    Data and references are read, and written references spoken if the data are; `request.store` keeps that.

    Args:
        request: The data and the options.

    Raises:
        UndersongError: There is no rehearsal or no such model, the data cannot be rehearsed, or transcripts are needed
            and are not in the store.
    """
    if not request.rehearse:
        raise UndersongError("--plan says what a rehearsal costs; add --rehearse STEPS, such as --rehearse 8.")
    check_named_axes(request)
    assert request.model is not None, "checked above"
    resolve_model(request.model)  # a wrong name is an error here, as in every command that loads the model
    inputs = CheckInputs(request)
    check_harmful_answers(inputs)
    with ExitStack() as stack:
        folder: str | Path | None = request.store
        store = ModelFreeStore(stack.enter_context(tempfile.TemporaryDirectory()) if folder is None else folder)
        ctx = run_context(request, store)
        axes = SampleAxes.open(ctx, request, inputs.sets(ctx, transcribed_data(inputs, store)[0]))
        return planned_rehearsals(axes).cost(None if folder is None else str(folder))
