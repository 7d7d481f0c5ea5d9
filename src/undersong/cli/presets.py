"""`undersong presets`: the public data sets that corpora can be named by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from undersong.cli.terminal import cell, echo, print_table

if TYPE_CHECKING:
    from undersong.corpora.registry import Preset

Role = Literal["pool", "harm", "over-refusal", "utility"]


def presets(
    preset: Annotated[str | None, typer.Argument(help="Show all that is known of this preset.")] = None,
    role: Annotated[Role | None, typer.Option("--role", help="List only presets of this role.")] = None,
) -> None:
    """List the public data sets that have a name.

    Name one as preset:ID wherever a corpus is asked for, or as preset:ID=PATH for a copy of your own.
    """
    from undersong.corpora.registry import get_preset, load_presets

    if preset is not None:
        _print_preset(get_preset(preset.removeprefix("preset:")))
        return
    _print_presets([item for item in load_presets().values() if role in (None, item.role)])


def _print_presets(listed: list[Preset]) -> None:
    from rich.table import Table

    table = Table("preset", "what", "role", "items", pad_edge=False, collapse_padding=True)
    for column in (0, 2, 3):
        table.columns[column].no_wrap = True
    table.columns[3].justify = "right"
    for item in listed:
        table.add_row(*map(cell, (item.id, item.title, item.role, _count_text(item))))
    print_table(table)
    echo("`undersong presets ID` says where one is, its license, and whether its columns were checked.")


def _count_text(item: Preset) -> str:
    """Number of items; some data sets do not say it."""
    return "unknown" if item.items is None else f"{item.items:,}"


def _print_preset(item: Preset) -> None:
    echo(f"preset:{item.id}: {item.title}")
    source = item.url if item.hub is None else f"{item.hub} on the Hugging Face hub"
    config = "" if item.config is None else f", configuration {item.config}"
    splits = "" if not item.splits else f", splits {', '.join(item.splits)}"
    echo(f"source: {source}{config}{splits}")
    echo(f"role: {item.role}; {_count_text(item)} items; license: {item.license}")
    echo("columns: " + ", ".join(f"{field} from {column}" for field, column in item.columns.items()))
    echo("columns and items were checked against the data or its card" if item.verified else "columns are not checked")
    echo(f"used for: {item.usage}")
    echo(f"notes: {item.notes}")
