"""All verbs on one Typer app.  A verb's own file holds its options; what it does is in the rooms."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from undersong.cli.compare import compare
from undersong.cli.defend import defend
from undersong.cli.evaluate import evaluate
from undersong.cli.export_eval import export_eval
from undersong.cli.gate import gate
from undersong.cli.judge import judge
from undersong.cli.models import doctor, models_app
from undersong.cli.probe import probe
from undersong.cli.report import report
from undersong.cli.schema import schema
from undersong.cli.screen import screen
from undersong.cli.status import status
from undersong.cli.study import demo, plan, run
from undersong.cli.tune import tune
from undersong.cli.verify import verify
from undersong.types import UndersongError

app = typer.Typer(
    name="undersong",
    help="Finds the harm beneath harmless audio: audits audio language models before and after benign fine-tuning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: drawing it with rich costs a third of `--help`'s time in imports
)
STUDY_COMMANDS = (demo, run, plan, status, schema)
STANDALONE_COMMANDS = (screen, tune, evaluate, judge, probe)
for command in (*STUDY_COMMANDS, *STANDALONE_COMMANDS, defend, compare, gate, report, export_eval, doctor, verify):
    app.command()(command)
app.add_typer(models_app, name="models")


def _version(requested: bool) -> None:
    if requested:
        from undersong import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _check_single_process(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and context.invoked_subcommand != "tune":
        raise UndersongError(
            f"{context.invoked_subcommand} is not split over processes, only tune is; start it without a launcher, "
            "once a GPU on one store."
        )
