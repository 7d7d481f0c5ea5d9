"""`undersong store STORE`: what a store holds, its sizes, and the removal of what is old or unused."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from undersong.cli.terminal import cell, echo, print_table
from undersong.models.load_options import LoadOptions
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.store.inventory import StoredFolder

SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


def store_command(
    loading: LoadOptions,
    store: Annotated[
        Path | None,
        typer.Argument(
            help="Folder that was given as --store. Default: the user's cache, where check keeps its results."
        ),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Choose artifacts made longer ago than this: 12h, 30d, 8w."),
    ] = None,
    unused_by: Annotated[
        list[Path] | None,
        typer.Option(
            "--unused-by",
            metavar="STUDY",
            help="Choose artifacts that this study does not need; repeatable. Give the loading options of its run.",
        ),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what is chosen. Without it, nothing is removed.")
    ] = False,
) -> None:
    """List what a store holds, and remove old or unused parts.

    With both --older-than and --unused-by, an artifact is chosen if both hold. What is removed is made again when a
    command needs it.
    """
    from undersong.store.inventory import check_nothing_grows, list_store, remove_folders

    chooses = older_than is not None or bool(unused_by)
    if delete and not chooses:
        raise UndersongError("--delete removes what is chosen; choose with --older-than or --unused-by.")
    age = None if older_than is None else _seconds(older_than)
    if store is None:
        store = _cache_folder()
    folders = list_store(store)
    if not chooses:
        _print_folders(folders, f"{store}")
        return
    chosen = folders if age is None else [folder for folder in folders if folder.created < time.time() - age]
    if unused_by:
        needed = _needed_by(unused_by, store, folders, loading)
        chosen = [folder for folder in chosen if (folder.stage, folder.name) not in needed]
    if delete and chosen:
        check_nothing_grows(store, folders)
        remove_folders(store, chosen)
    if chosen:
        _print_folders(chosen, "Removed" if delete else "Chosen")
    size, rest = (sum(folder.size for folder in part) for part in (chosen, folders))
    verb = "were removed" if delete else "would be removed with --delete"
    echo(f"{len(chosen):,} of {len(folders):,} artifacts ({_bytes(size)} of {_bytes(rest)}) {verb}.")


def _cache_folder() -> Path:
    from undersong.store.user_cache import VARIABLE, user_cache

    folder = user_cache()
    if folder is None:
        raise UndersongError(f"{VARIABLE} is empty, so there is no cache to list; name a store.")
    if not folder.is_dir():
        raise UndersongError(f"The cache {folder} does not exist, so nothing is kept there; name another store.")
    if not any(folder.iterdir()):
        raise UndersongError(f"The cache {folder} is empty, so there is nothing to list; name another store.")
    return folder


def _needed_by(
    studies: Sequence[Path], store: Path, folders: Sequence[StoredFolder], loading: LoadOptions
) -> set[tuple[str, str]]:
    from undersong.study.load import load_studies
    from undersong.study.planning.store_use import folders_of_study

    return {
        name
        for file in studies
        for study in load_studies(file).studies
        for name in folders_of_study(study, store, folders, loading)
    }


def _seconds(age: str) -> float:
    match = re.fullmatch(r"(\d+)([hdw])", age)
    if match is None:
        raise UndersongError(f"--older-than {age!r} is no age; write a whole number and h, d or w, such as 30d.")
    return int(match[1]) * SECONDS[match[2]]


def _print_folders(folders: Sequence[StoredFolder], title: str) -> None:
    from rich.table import Table

    table = Table("stage", title=cell(title))
    for name in ("artifacts", "unfinished", "size", "oldest", "newest"):
        table.add_column(name, justify="right", no_wrap=True)
    stages: dict[str, list[StoredFolder]] = {}
    for folder in sorted(folders, key=lambda folder: folder.stage):
        stages.setdefault(folder.stage, []).append(folder)
    groups = [*stages.items(), ("all", folders)] if len(stages) > 1 else list(stages.items())
    for stage, group in groups:
        dates = [time.strftime("%Y-%m-%d", time.gmtime(folder.created)) for folder in group]
        unfinished = sum(not folder.is_finished for folder in group)
        counts = (str(len(group) - unfinished), str(unfinished or ""), _bytes(sum(folder.size for folder in group)))
        table.add_row(cell(stage), *counts, min(dates), max(dates))
    print_table(table)


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
