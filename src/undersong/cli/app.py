"""The Typer application with all commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import typer

from undersong.cli.audit_adapter import audit_adapter_command
from undersong.cli.card import card
from undersong.cli.check import check_command
from undersong.cli.command_group import CommandGroup
from undersong.cli.compare import compare_command
from undersong.cli.demo import demo
from undersong.cli.evaluate import evaluate, judge
from undersong.cli.export_adapter import export_adapter_command
from undersong.cli.gate import gate
from undersong.cli.interruption import reporting_interruption
from undersong.cli.label import label
from undersong.cli.models import doctor, models_app, verify
from undersong.cli.option_fields import with_options
from undersong.cli.presets import presets
from undersong.cli.probe import probe
from undersong.cli.replies import replies_command
from undersong.cli.report import export_eval, report
from undersong.cli.screen import screen_command
from undersong.cli.store import store_command
from undersong.cli.study import defend, plan, run_command, schema, status
from undersong.cli.synthesize import synthesize_command
from undersong.cli.terminal import echo
from undersong.cli.tune import tune
from undersong.cli.watch import watch
from undersong.types import UndersongError

app = typer.Typer(
    name="undersong",
    cls=CommandGroup,
    help="Audits the safety of audio language models before and after fine-tuning on benign data.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},  # the commands inherit them
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: drawing it with rich costs a third of `--help`'s time in imports
)
COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "run": run_command,
    "plan": plan,
    "status": status,
    "schema": schema,
    "check": check_command,
    "screen": screen_command,
    "tune": tune,
    "watch": watch,
    "export-adapter": export_adapter_command,
    "audit-adapter": audit_adapter_command,
    "evaluate": evaluate,
    "judge": judge,
    "label": label,
    "probe": probe,
    "defend": defend,
    "compare": compare_command,
    "gate": gate,
    "card": card,
    "report": report,
    "synthesize": synthesize_command,
    "export-eval": export_eval,
    "replies": replies_command,
    "presets": presets,
    "doctor": doctor,
    "verify": verify,
    "store": store_command,
}
for name, command in COMMANDS.items():
    app.command(name)(reporting_interruption(name, with_options(command)))
app.add_typer(models_app, name="models")


def _version(requested: bool) -> None:
    if requested:
        from undersong import __version__

        echo(__version__)
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
