"""`undersong compare BEFORE AFTER`: two verdict files, paired by prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from undersong.evaluation.compare import Comparison


def compare(
    before: Annotated[Path, typer.Argument(help="Verdicts of the first model: .parquet or .jsonl.")],
    after: Annotated[Path, typer.Argument(help="Verdicts of the second model on the same prompts.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    judge: Annotated[str | None, typer.Option(help="Judge to take, where a file holds several.")] = None,
    prompt_set: Annotated[str | None, typer.Option("--set", help="Set of prompts to take.")] = None,
    modality: Annotated[str | None, typer.Option(help="Modality of the prompts: audio or text.")] = None,
    system: Annotated[str | None, typer.Option(help="Name of the system text to take.")] = None,
    allow_unpaired: Annotated[
        bool, typer.Option("--allow-unpaired", help="Leave out prompts only one file has.")
    ] = False,
) -> None:
    """Compare two models prompt by prompt: JSR before and after, McNemar's exact test, paired intervals."""
    from undersong.evaluation.compare import compare_verdicts, sentence, to_json
    from undersong.evaluation.verdicts import read_verdicts

    comparison = compare_verdicts(
        read_verdicts(before),
        read_verdicts(after),
        judge=judge,
        set=prompt_set,
        modality=modality,
        system=system,
        allow_unpaired=allow_unpaired,
        names=(str(before), str(after)),
    )
    if as_json:
        typer.echo(json.dumps(to_json(comparison), indent=2, ensure_ascii=False, allow_nan=False))
        return
    _print_table(comparison)
    typer.echo(sentence(comparison))
    for note in comparison.notes:
        typer.echo(f"Note: {note}")


def _print_table(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    paired = comparison.paired
    rate, count = ("JSR", "jailbroken") if comparison.metric == "jsr" else ("refusal rate", "refused")
    table = Table("", count, rate, "95 %", "errors, unparsed", "if they all counted")
    rows = (("before", paired.before, comparison.before), ("after", paired.after, comparison.after))
    for name, share, side in rows:
        table.add_row(
            name,
            f"{share.successes} of {paired.n}",
            f"{share.rate:.1%}",
            f"{share.low:.1%} to {share.high:.1%}",
            f"{side.error}, {side.unparsed}",
            f"{side.bounds.high:.1%}",
        )
    Console().print(table)
