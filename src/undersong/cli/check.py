"""`undersong check DATA`: does a training file lie nearer to harm than ordinary data do?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from undersong.cli.progress import ProgressDisplay
from undersong.cli.screen import RehearsalPlan
from undersong.cli.terminal import echo
from undersong.phrases import count
from undersong.screening.check.options import CheckRequest
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.screening.check.result import CheckResult, RankedSample

MAX_LETTERS = 160  # of a text that is shown


def check_command(
    request: CheckRequest,
    *,
    plan: RehearsalPlan = False,
) -> None:
    """Check whether training data lie unusually near to harm.

    A sample is nearer if it lies nearer to a harmful request than 99 % of ordinary requests do. The verdict compares
    the number of nearer samples with the number that ordinary data of this size would have.

    Exit codes: 0 if the data have no more nearer samples than ordinary data, 1 if they have more, 3 if the check cannot
    tell, 2 on bad input. Training on a file that passes may still weaken a model's refusals.
    """
    from undersong.screening.check.fix import check_fix, fix_data
    from undersong.screening.check.rehearsal_plan import plan_check
    from undersong.screening.check.run import one_measurement, run_check

    if plan:
        with ProgressDisplay() as say:
            cost = plan_check(replace(request, progress=say))
        for line in cost.lines:
            echo(line)
        return
    if request.drop is not None and request.fix is None:
        raise UndersongError("--drop leaves samples out of the file that --fix writes; give --fix OUT too.")
    if request.fix is not None:
        check_fix(request)
    if request.writes_views:
        from undersong.pages.data_page import check_view_paths

        check_view_paths(request.page, request.explore)
    with one_measurement(request) as measured:
        with ProgressDisplay() as say:
            result = run_check(replace(measured, progress=say))
        views = _write_views(measured, result)
    for line in _result_lines(result, request.top):
        echo(line)
    if request.fix is not None:  # after the verdict, which says why data cannot be fixed
        echo(fix_data(request, result).sentence)
    for sentence in views:
        echo(sentence)
    if request.out is not None:
        echo(f"The ranked list and the verdict are in {Path(request.out)}.")
    raise typer.Exit(result.exit_code)


def _write_views(request: CheckRequest, result: CheckResult) -> tuple[str, ...]:
    if not request.writes_views:
        return ()
    from undersong.screening.check.view import write_check_views

    return write_check_views(request, result)


def _result_lines(result: CheckResult, top: int) -> list[str]:
    from undersong.proximity.separation import separation_sentence
    from undersong.screening.check.result import EVIDENCE

    lines = [f"{result.data}: {count(result.samples, 'sample')}, read as {result.recognized}."]
    references = " and ".join(f"{ref} ({size:,})" for ref, size in result.harm.items())
    ordinary = " and ".join(f"{ref} ({size:,})" for ref, size in result.ordinary.items())
    if result.axes:
        lines.append(f"Compared with harmful requests of {references} and ordinary ones of {ordinary}.")
    lines += [separation_sentence(axis.name, axis.auc) for axis in result.axes]
    shown = result.ranked[:top]
    if shown:
        by = f", by {result.ranked_by}" if len(result.axes) > 1 else ""
        lines.append(f"Look at {f'these {len(shown)} samples' if len(shown) > 1 else 'this sample'} first{by}:")
        lines += [line for sample in shown for line in _sample_lines(sample)]
    lines += result.notes
    lines.append(f"{result.verdict[:1].upper()}{result.verdict[1:]}: {result.sentence}")
    lines.append(EVIDENCE)
    return lines


def _sample_lines(sample: RankedSample) -> list[str]:
    source = "" if sample.nearest_source is None else f" of {sample.nearest_source}"
    text = f": {_shorten(sample.text)}" if sample.text else ""
    lines = [f"{sample.rank}. {sample.id}, distance {sample.distance:.2f}{text}"]
    if sample.nearest_id is not None:
        nearest = _shorten(sample.nearest_text) if sample.nearest_text else sample.nearest_id
        lines.append(f"   nearest harmful text{source}: {nearest}")
    return lines


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_LETTERS else f"{line[: MAX_LETTERS - 1]}…"
