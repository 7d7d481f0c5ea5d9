"""The report for a pull request: verdict, arms, defenses and notes as Markdown, in the sentences of the HTML report.

Names of models, sets and arms come from files that anybody may have written: whatever is not ours is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from undersong.report import words
from undersong.report.schema import read
from undersong.report.sections import advice, arms, comprehended, defended, headline, making
from undersong.report.sections.defended import Cell, Defended
from undersong.store import write_atomic

TITLE = "# undersong: "  # how the file begins, by which an earlier one is known
BROUGHT = "What each defense brought, and what it cost"
PRICED = "In per cent: mean, 95 % interval, and change in points against no defense."
# what XML 1.0, and with it any page, cannot hold
NOT_SHOWN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(results: Mapping[str, Any]) -> str:
    """The report on `results` (the content of a results.json) as Markdown; it holds no reply and no prompt.

    Errors: UndersongError where the results are of another schema or broken.
    """
    found = read(results)
    first, measured, charged, made = (part.build(found) for part in (headline, arms, defended, making))
    advised, told = advice.build(found), comprehended.build(found)
    verdict = escaped("".join(text for text, _ in first.title))
    lines = [TITLE + escaped(found.study.name), "", f"**{verdict}**", ""]
    if advised:
        lines += ["## What to do", "", *_items(f"**{escaped(one.what)}** {escaped(one.why)}" for one in advised)]
        lines += ["", "## What was found", ""]
    lines += _items(f"**{escaped(term)}:** {escaped(text)}" for term, text in first.findings)
    if measured is not None:
        lines += ["", "## Arms", "", *table(measured.head, measured.rows), "", escaped(f"{measured.caption}.")]
    if told is not None:
        lines += ["", "## Heard, and answered?", "", *table(told.head, told.rows), "", escaped(f"{told.caption}.")]
    if charged is not None:
        lines += ["", "## Defenses", "", *_items(map(escaped, charged.recommended)), "", *_defenses(charged)]
    if made.notes:
        lines += ["", "## What the reader must know", "", *_items(map(escaped, made.notes))]
    return "\n".join(lines) + "\n"


def write_markdown(results: Mapping[str, Any], path: str | Path) -> None:
    """`render` into a file, whole or not at all."""
    write_atomic(path, render(results).encode("utf-8", errors="xmlcharrefreplace"))


def defenses(results: Mapping[str, Any], quote: Callable[[str], str] | None = None) -> list[str]:
    """The table of defenses and what is recommended: Markdown, each cell as `quote` has it; default: as it is read in a
    terminal, nothing escaped."""
    charged = defended.build(read(results))
    if charged is None:
        return ["No defense was measured."]
    made = quote or plain
    return [*_charged(charged, made), "", *map(made, charged.recommended)]


def _defenses(charged: Defended) -> list[str]:
    """Folded where there are many, as on the page."""
    lines = [*_items(map(escaped, charged.findings)), "", *_charged(charged, escaped), "", PRICED]
    rows = sum(len(block.lines) for block in charged.blocks)
    return ["<details>", f"<summary>{BROUGHT}</summary>", "", *lines, "", "</details>"] if rows > 4 else lines


def _charged(charged: Defended, quote: Callable[[str], str]) -> list[str]:
    columns = [f"{what}, {mode}" if mode else what for what, modes in charged.heads for mode in modes]
    rows = [
        (f"{block.title}: {line.name}", " ".join(filter(None, (line.detail, line.note))), *map(_cell, line.cells))
        for block in charged.blocks
        for line in block.lines
    ]
    return table(("Defense", "How", *columns), rows, quote)


def _cell(cell: Cell) -> str:
    return " ".join(filter(None, (cell.rate, cell.interval if cell.interval != words.NONE else "", cell.change)))


def _items(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], quote: Callable[[str], str] | None = None
) -> list[str]:
    """The lines of a table, every cell escaped, or as `quote` has it."""
    made = quote or escaped
    lines = [row(made(str(cell)) for cell in cells) for cells in (head, *rows)]
    return [lines[0], "|" + " --- |" * len(head), *lines[1:]]


def row(cells: Iterable[str]) -> str:
    """A line of a table; the cells are escaped already."""
    return "| " + " | ".join(cells) + " |"


def plain(text: str) -> str:
    """Without the characters that no page can hold."""
    return NOT_SHOWN.sub("\ufffd", text)


def escaped(text: str) -> str:
    """As it stands, in a cell of a table or an item of a list: no markup, HTML, mention or new line."""
    one_line = " ".join(plain(text).split()).replace("@", "@\u200b")
    return re.sub(r"([\\`*_\[\]<>|&#!~$])", r"\\\1", one_line)
