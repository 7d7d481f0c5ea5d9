"""`undersong watch`: measure the checkpoints of a training while it runs, and stop it when a rise is shown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from undersong.audits.watch.options import WatchOptions
from undersong.cli.gate import exit_2_on_unexpected_error
from undersong.cli.terminal import echo
from undersong.models.load_options import LoadOptions
from undersong.standalone.options import MODEL_HELP


@exit_2_on_unexpected_error
def watch(
    output_dir: Annotated[Path, typer.Argument(help="Output folder of the trainer, with checkpoint-STEP folders.")],
    model: Annotated[str, typer.Option("--model", help=f"Base that is trained: {MODEL_HELP}.")],
    options: WatchOptions,
    loading: LoadOptions,
    once: Annotated[
        bool, typer.Option("--once", help="Measure what is there, and exit; do not wait for more checkpoints.")
    ] = False,
    until: Annotated[int | None, typer.Option(help="End once this step is measured.", metavar="STEP", min=1)] = None,
    poll: Annotated[float, typer.Option(help="Seconds between two looks at the folder.", min=0.1)] = 30,
    idle: Annotated[
        float | None, typer.Option(help="End after this many minutes without anything new. Default: never.", min=0)
    ] = None,
) -> None:
    """Measure checkpoints during a training.

    Works from outside the trainer, in an environment of its own, with checkpoints of any trainer. Prints a line per
    checkpoint, and writes JSONL, verdicts and TensorBoard events. Where a rise above a limit is shown, it writes the
    file STOP, which a few lines in the trainer look for. Exit codes: 0 if the last checkpoint keeps every limit, 1 if a
    rise is shown, 3 if there are too few prompts to tell or a checkpoint could not be measured, 2 on bad input.
    """
    from undersong.audits.gate.findings import PASSED
    from undersong.audits.watch.run import watch_output

    def say(line: str) -> None:
        echo(line)

    wait = None if once else Waiting(poll, None if idle is None else 60 * idle)
    outcome = watch_output(output_dir, model, options, loading, say=say, wait=wait, until=until)
    if outcome.stop_file is not None:
        echo(str(outcome.stop_file))
    if outcome.exit_code != PASSED:
        raise typer.Exit(outcome.exit_code)


class Waiting:
    """Wait between two looks; False after `idle_seconds` without anything new."""

    def __init__(self, poll_seconds: float, idle_seconds: float | None) -> None:
        self.poll_seconds, self.idle_seconds = poll_seconds, idle_seconds
        self._last_news = time.monotonic()

    def __call__(self, news: bool) -> bool:
        """Wait; False if the time without anything new is over."""
        if news:
            self._last_news = time.monotonic()
        elif self.idle_seconds is not None and time.monotonic() - self._last_news >= self.idle_seconds:
            return False
        time.sleep(self.poll_seconds)
        return True
