"""The report as Markdown for pull requests, with escaping of all names that come from files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from undersong.escaping import escape_line
from undersong.pages import formatting
from undersong.pages.markdown_table import escape_markdown, markdown_table
from undersong.report.sections import advice, arm_chart, comprehension, headline, provenance
from undersong.research.report import defenses
from undersong.research.report.defenses import DefenseCell, DefenseTable
from undersong.results.schema import parse_results
from undersong.store.atomic import write_atomic

TITLE_PREFIX = "# undersong: "  # how the file begins, by which an earlier one is known
FINDINGS_SUMMARY = "Effect and cost of each defense"
TABLE_NOTE = "In percent: mean, 95 % interval, and change in points against no defense."


def render_markdown(results: Mapping[str, Any]) -> str:
    """The report on `results` (the content of a results.json) as Markdown; it holds no reply and no prompt.

    Errors: UndersongError where the results are of another schema or broken.
    """
    parsed = parse_results(results)
    summary, arm_table = headline.build_headline(parsed), arm_chart.build_arm_table(parsed)
    defense_table, provenance_section = defenses.build_defense_table(parsed), provenance.build_provenance(parsed)
    advice_items, comprehension_table = advice.build_advice(parsed), comprehension.build_comprehension_table(parsed)
    verdict = escape_markdown("".join(text for text, _ in summary.title))
    lines = [TITLE_PREFIX + escape_markdown(parsed.study.name), "", f"**{verdict}**", ""]
    lines += [escape_markdown(summary.gloss), ""] if summary.gloss else []
    if advice_items:
        lines += [
            "## Recommended actions",
            "",
            *_bullet_lines(f"**{escape_markdown(item.what)}** {escape_markdown(item.why)}" for item in advice_items),
        ]
        lines += ["", "## Findings", ""]
    lines += _bullet_lines(f"**{escape_markdown(term)}:** {escape_markdown(text)}" for term, text in summary.findings)
    if arm_table is not None:
        lines += [
            "",
            "## Arms",
            "",
            *markdown_table(arm_table.head, arm_table.rows),
            "",
            escape_markdown(f"{arm_table.caption}."),
        ]
    if comprehension_table is not None:
        lines += [
            "",
            "## Comprehension",
            "",
            *markdown_table(comprehension_table.head, comprehension_table.rows),
            "",
            escape_markdown(f"{comprehension_table.caption}."),
        ]
    if defense_table is not None:
        lines += [
            "",
            "## Defenses",
            "",
            *_bullet_lines(map(escape_markdown, defense_table.recommended)),
            "",
            *_defense_section(defense_table),
        ]
    if provenance_section.registration:
        lines += ["", *map(escape_markdown, provenance_section.registration)]
    if provenance_section.notes:
        lines += [
            "",
            "## Caveats",
            "",
            *_bullet_lines(map(escape_markdown, provenance_section.notes)),
        ]
    return "\n".join(lines) + "\n"


def write_markdown(results: Mapping[str, Any], path: str | Path) -> None:
    """Render the report as Markdown and write it to a file, completely or not at all."""
    write_atomic(path, render_markdown(results).encode("utf-8", errors="xmlcharrefreplace"))


def defense_table_lines(results: Mapping[str, Any], quote: Callable[[str], str] | None = None) -> list[str]:
    """Return the table of defenses and the recommendations as Markdown lines.

    `quote` escapes each cell; by default cells are made for a terminal, without escapes of Markdown.
    """
    defense_table = defenses.build_defense_table(parse_results(results))
    if defense_table is None:
        return ["No defense was measured."]
    escape = quote or escape_line
    return [*_defense_table(defense_table, escape), "", *map(escape, defense_table.recommended)]


def _defense_section(defense_table: DefenseTable) -> list[str]:
    """Folded where there are many, as on the page."""
    lines = [
        *_bullet_lines(map(escape_markdown, defense_table.findings)),
        "",
        *_defense_table(defense_table, escape_markdown),
        "",
        TABLE_NOTE,
    ]
    rows = sum(len(block.lines) for block in defense_table.blocks)
    return ["<details>", f"<summary>{FINDINGS_SUMMARY}</summary>", "", *lines, "", "</details>"] if rows > 4 else lines


def _defense_table(defense_table: DefenseTable, quote: Callable[[str], str]) -> list[str]:
    columns = [
        f"{heading}, {modality}" if modality else heading
        for heading, modalities in defense_table.heads
        for modality in modalities
    ]
    rows = [
        (
            f"{block.title}: {defense_row.name}",
            " ".join(filter(None, (defense_row.detail, defense_row.note))),
            *map(_cell_text, defense_row.cells),
        )
        for block in defense_table.blocks
        for defense_row in block.lines
    ]
    return markdown_table(("Defense", "How", *columns), rows, quote)


def _cell_text(cell: DefenseCell) -> str:
    return " ".join(
        filter(None, (cell.rate, cell.interval if cell.interval != formatting.MISSING else "", cell.change))
    )


def _bullet_lines(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]
