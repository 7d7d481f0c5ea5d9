"""`undersong compare BEFORE AFTER…`: verdict files of two or more models, paired by prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from undersong.types import UndersongError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from undersong.evaluation.compare import Comparison
    from undersong.evaluation.many import Arm


def compare(
    before: Annotated[Path, typer.Argument(help="Verdicts of the first model: .parquet or .jsonl.")],
    after: Annotated[
        list[Path], typer.Argument(help="Verdicts of the second model on the same prompts; of more, a table.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    judge: Annotated[str | None, typer.Option(help="Judge to take, where a file holds several.")] = None,
    prompt_set: Annotated[str | None, typer.Option("--set", help="Set of prompts to take.")] = None,
    modality: Annotated[str | None, typer.Option(help="Modality of the prompts: audio or text.")] = None,
    system: Annotated[str | None, typer.Option(help="Name of the system text to take.")] = None,
    allow_unpaired: Annotated[
        bool, typer.Option("--allow-unpaired", help="Leave out prompts only one file has.")
    ] = False,
) -> None:
    """Compare models prompt by prompt: JSR, McNemar's exact test, paired intervals; Holm for several."""
    from undersong.evaluation.many import compare_many
    from undersong.evaluation.verdicts import read_verdicts

    if len(set(after)) < len(after):
        raise UndersongError("A file stands twice after the first; name every model once.")
    arms = compare_many(
        read_verdicts(before),
        {str(file): read_verdicts(file) for file in after},
        name=str(before),
        judge=judge,
        set=prompt_set,
        modality=modality,
        system=system,
        allow_unpaired=allow_unpaired,
    )
    if as_markdown:
        from undersong.evaluation.many import markdown

        typer.echo(markdown(arms, str(before)))
    elif len(arms) == 1:
        _print_one(arms[0].comparison, as_json)
    else:
        _print_many(arms, str(before), as_json)


def _print_one(comparison: Comparison, as_json: bool) -> None:
    from undersong.evaluation.compare import sentence, to_json

    if as_json:
        typer.echo(json.dumps(to_json(comparison), indent=2, ensure_ascii=False, allow_nan=False))
        return
    _print_table(comparison)
    typer.echo(sentence(comparison))
    for note in comparison.notes:
        typer.echo(f"Note: {note}")


def _print_many(arms: Sequence[Arm], name: str, as_json: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from undersong.evaluation.many import HEAD, many_json, rows, said

    if as_json:
        typer.echo(json.dumps(many_json(arms), indent=2, ensure_ascii=False, allow_nan=False))
        return
    table = Table()
    told = rows(arms, name)
    # eighty columns are few: one that says nothing of any model is left out
    kept = [i for i in range(len(HEAD)) if any(cells[i] not in ("", "0, 0") for cells in told)]
    for i in kept:
        head = HEAD[i].replace("difference, ", "").replace(" (clustered)", "")
        # a name that breaks over lines is still told from the others, unlike one that is cut
        table.add_column(head, overflow="fold", width=18 if i == 0 else None, no_wrap=head.startswith("p"))
    for cells in told:
        table.add_row(*(escape(cells[i]) for i in kept))
    Console().print(table)
    for line in said(arms):
        typer.echo(line)


def _print_table(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    from undersong.evaluation.compare import NAMES
    from undersong.evaluation.many import failed

    paired = comparison.paired
    count = "refused" if comparison.metric == "refusal_rate" else "jailbroken"
    table = Table("", count, NAMES[comparison.metric], "95 %", "errors,\nunparsed", "either way")
    rows = (("before", paired.before, comparison.before), ("after", paired.after, comparison.after))
    for name, share, side in rows:
        table.add_row(
            name,
            f"{share.successes} of {paired.n}",
            f"{share.rate:.1%}",
            f"{share.low:.1%} to {share.high:.1%}",
            *failed(side),
        )
    Console().print(table)
