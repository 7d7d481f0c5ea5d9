"""`undersong replies`: prompts with the replies to them, as `evaluate`, `run` or any other program collected them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.terminal import echo
from undersong.types import VERDICTS, UndersongError

MAX_PROMPT, MAX_REPLY = 200, 400  # characters shown


def replies_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of `evaluate`, `run`, `audit-adapter` or `watch`, or a file of replies (.parquet, .jsonl).",
        ),
    ],
    verdict: Annotated[
        str | None, typer.Option("--verdict", help="Show only replies with this verdict, such as jailbreak.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Largest number of replies to show.")] = 20,
    show_replies: Annotated[bool, typer.Option("--show-replies", help="Show replies to harmful prompts.")] = False,
) -> None:
    """Show prompts with the replies to them.

    Replies to harmful prompts are redacted unless you ask for them.
    """
    from undersong.standalone.reply_listing import ListedReply, list_replies

    if verdict is not None and verdict not in VERDICTS:
        raise UndersongError(f"There is no verdict {verdict!r}; choose from {', '.join(VERDICTS)}.")
    all_replies = list_replies(source)
    if verdict is not None and all_replies and not any(item.verdict for item in all_replies):
        raise UndersongError(
            f"{source} has no verdicts, and none lie beside it; give the folder that `undersong evaluate` wrote, or "
            "leave --verdict out."
        )
    listed = [item for item in all_replies if verdict in (None, item.verdict)]
    if not listed:
        named = "" if verdict is None else f" with the verdict {verdict!r}"
        raise UndersongError(f"{source} has no replies{named}; name another folder, or leave --verdict out.")

    def lines(item: ListedReply) -> Iterator[str]:
        facts = ", ".join(filter(None, (item.place, item.verdict, "cut at the limit of tokens" if item.cut else "")))
        yield f"{item.prompt_id} ({facts})"
        yield f"  prompt: {_shorten(item.prompt or '(no text; it was spoken)', MAX_PROMPT)}"
        if item.reply is None:
            yield "  reply: not in this file"
        elif item.harmful and not show_replies:
            yield "  reply: redacted; --show-replies shows it"
        else:
            yield f"  reply: {_shorten(item.reply, MAX_REPLY)}"

    for item in listed[:limit]:
        for line in lines(item):
            echo(line)
    if len(listed) > limit:
        echo(f"{limit} of {len(listed)} replies; --limit {len(listed)} shows all.")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
