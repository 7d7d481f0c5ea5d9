"""`export-eval`: a study as logs of inspect_ai."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from undersong.types import UndersongError


def export_eval(
    results: Annotated[Path, typer.Argument(help="A results.json that `undersong run` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder for the .eval logs.")],
    arm: Annotated[str | None, typer.Option("--arm", help="This arm alone.")] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Where the replies are; default: the study's own store.")
    ] = None,
    show_replies: Annotated[
        bool, typer.Option("--show-replies", help="Write replies to harmful prompts too; for your eyes only.")
    ] = False,
) -> None:
    """Write a study as .eval logs that `inspect view` opens: one an arm, run, step and set (extra `inspect`)."""
    if find_spec("inspect_ai") is None:
        raise UndersongError("Writing .eval logs needs inspect-ai; pip install 'undersong[inspect]'.")
    from undersong.integrations.inspect.logs import write_logs

    log_files = write_logs(results, out, arm=arm, store=store, show_replies=show_replies)
    typer.echo(f"{len(log_files)} logs in {out.resolve()}; inspect view --log-dir {out}")
