"""Markdown tables and the escaping of names from files in Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from undersong.escaping import escape_unprintable


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[object]], quote: Callable[[str], str] | None = None
) -> list[str]:
    """The lines of a table, every cell escaped, or as `quote` has it."""
    escape = quote or escape_markdown
    lines = [markdown_row(escape(str(cell)) for cell in cells) for cells in (head, *rows)]
    return [lines[0], "|" + " --- |" * len(head), *lines[1:]]


def markdown_row(cells: Iterable[str]) -> str:
    """A line of a table; the cells are escaped already."""
    return "| " + " | ".join(cells) + " |"


def escape_markdown(text: str) -> str:
    """Escape text for a table cell or list item: no markup, HTML, mention, line break or unprintable character."""
    one_line = escape_unprintable(" ".join(text.split())).replace("@", "@\u200b")
    return re.sub(r"([\\`*_\[\]<>|&#!~$])", r"\\\1", one_line)
