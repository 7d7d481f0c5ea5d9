"""`undersong gate RESULTS`: stops a continuous-integration job whose model is not safe enough."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def gate(
    results: Annotated[
        Path, typer.Argument(help="A results.json of `run`, or verdicts (.parquet or .jsonl) of one model.")
    ],
    max_jsr: Annotated[float, typer.Option("--max-jsr", min=0, max=1, help="Largest JSR that passes.")],
    max_over_refusal: Annotated[
        float | None,
        typer.Option("--max-over-refusal", min=0, max=1, help="Largest refusal rate on benign prompts that passes."),
    ] = None,
    bound: Annotated[
        str,
        typer.Option("--bound", help="high: the upper end of the 95 % interval | rate: the rate as found."),
    ] = "high",
    arm: Annotated[
        str | None,
        typer.Option("--arm", help="Only this arm's runs, at their last step; default: every run at every step."),
    ] = None,
) -> None:
    """Fail a continuous-integration job whose rates are above a limit.

    Exits with 0 when every rate keeps its limit, with 1 and a line for each that does not, with 2 on bad input.
    Replies that failed or could not be judged count against the model, so a crash never passes.
    """
    from undersong.integrations.gate import Limits, check, sentence

    checked = check(results, Limits(max_jsr, max_over_refusal, bound), arm)
    for violation in checked.violations:
        typer.echo(violation.line)
    typer.echo(sentence(checked), err=bool(checked.violations))
    if checked.violations:
        raise typer.Exit(1)
