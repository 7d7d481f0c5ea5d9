"""Every defense, each charged: JSR, over-refusal and utility in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from undersong.report import formatting
from undersong.report.columns import DefenseColumn, column_heading, defense_columns, mean_or_none
from undersong.report.priced import DefenseRecommendation, DefenseRecord
from undersong.report.sections import brought, pareto
from undersong.report.svg import tag
from undersong.report.tables import PanelGroup, Table, training_label
from undersong.results.schema import Results
from undersong.study.judge_names import RATE_LABELS

BAR_CLASSES = {
    "jsr_by_set": "jsr",
    "again": "jsr",
    "over_refusal": "over-refusal",
    "kept": "utility",
}  # classes of the style sheet
DEFENSE_ORDER = ("none", "distant data", "system prompt")


@dataclass(frozen=True, slots=True)
class DefenseCell:
    """A number of the table and what stands under it: a share in per cent, drawn as a bar, or CPU seconds."""

    rate: str
    interval: str
    change: str  # points against the row without a defense; empty in that row
    bar: Markup


@dataclass(frozen=True, slots=True)
class DefenseRow:
    """One defense: `detail`: what it changes, and how it was measured; `note`: what was chosen in its runs."""

    name: str
    detail: str
    note: str
    cells: tuple[DefenseCell, ...]


@dataclass(frozen=True, slots=True)
class DefenseBlock:
    """The rows of one training modality."""

    title: str
    lines: tuple[DefenseRow, ...]


@dataclass(frozen=True, slots=True)
class DefenseTable:
    """The table of defenses: a block an undefended arm, the cells of a line under `heads` in order."""

    heads: tuple[tuple[str, tuple[str, ...]], ...]  # (what, its columns by modality of the prompts)
    blocks: tuple[DefenseBlock, ...]
    findings: tuple[str, ...]  # what each defense brought and cost, one sentence each
    recommended: tuple[str, ...]
    groups: tuple[PanelGroup, ...]  # the same as a picture, where there are several
    numbers: Table  # behind the pictures
    seconds: bool  # whether it is known what each took to make
    limited: bool  # whether anything says what is safe
    rate: str  # JSR, or non-refusal rate where the judge sees refusal only


def build_defense_table(results: Results) -> DefenseTable | None:
    """None where no defense was measured."""
    columns = defense_columns(results.defenses)
    if not results.defenses or not columns:
        return None
    rate = RATE_LABELS.get(results.defenses[0].metric, results.defenses[0].metric)
    heads: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        heads.setdefault((column.group, column.set), []).append(
            formatting.modality_label(column.modality) if column.modality else ""
        )
    groups = _rows_by_arm(results.defenses)
    cpu_seconds = results.provenance.get("cpu_seconds_by_defense") or {}
    cost_headings = ("at most", *(("CPU s to make", "CPU s to ask") if cpu_seconds else ()))
    return DefenseTable(
        heads=(
            *(
                (formatting.capitalize_first(column_heading(*key, rate)), tuple(modalities))
                for key, modalities in heads.items()
            ),
            ("Price", cost_headings),
        ),
        blocks=tuple(DefenseBlock(title, tuple(_defense_rows(rows, columns, cpu_seconds))) for title, rows in groups),
        findings=tuple(
            finding for title, rows in groups for finding in brought.defense_findings(title, rows, columns, rate)
        ),
        recommended=tuple(_recommendation_lines(results)),
        groups=tuple(pareto.tradeoff_groups(groups, rate)),
        numbers=pareto.tradeoff_table(groups, rate),
        seconds=bool(cpu_seconds),
        limited=any(row.safe is not None for row in results.defenses),
        rate=rate,
    )


def _recommendation_lines(results: Results) -> list[str]:
    several_arms = len(results.recommended) > 1
    return [
        f"{f'{recommendation_arm(recommendation, results)}: ' if several_arms else ''}Recommended: {recommendation.defense or 'none'}. {recommendation.reason}"
        for recommendation in results.recommended
    ]


def recommendation_arm(recommendation: DefenseRecommendation, results: Results) -> str:
    """The undefended arm that a recommendation is about, by what differs among them."""
    designs = {
        (other_recommendation.family, other_recommendation.axis, other_recommendation.fraction)
        for other_recommendation in results.recommended
    }
    return _arm_title(recommendation, len(designs) > 1)


def undefended_arm_title(defense: DefenseRecord) -> str:
    """The undefended arm of a row, in full."""
    return _arm_title(defense, True)


def _arm_title(record: DefenseRecord | DefenseRecommendation, show_design: bool) -> str:
    design_parts = (
        record.family,
        f"{record.axis} axis" if record.axis else None,
        f"{record.fraction:g}" if record.fraction else None,
    )
    return ", ".join((training_label(record.train_modality), *(part for part in design_parts if show_design and part)))


def _rows_by_arm(defenses: Sequence[DefenseRecord]) -> list[tuple[str, list[DefenseRecord]]]:
    """What may be compared: the rows of one undefended arm."""
    groups: dict[tuple[object, ...], list[DefenseRecord]] = {}
    for row in defenses:
        groups.setdefault((row.family, row.axis, row.fraction, row.train_modality), []).append(row)
    several_designs = len({key[:3] for key in groups}) > 1
    return [(_arm_title(rows[0], several_designs), _in_display_order(rows)) for rows in groups.values()]


def _in_display_order(rows: Sequence[DefenseRecord]) -> list[DefenseRecord]:
    return sorted(
        rows, key=lambda row: DEFENSE_ORDER.index(row.defense) if row.defense in DEFENSE_ORDER else len(DEFENSE_ORDER)
    )


def _defense_rows(
    rows: Sequence[DefenseRecord], columns: Sequence[DefenseColumn], cpu_seconds: Mapping[str, Any]
) -> list[DefenseRow]:
    undefended = next((row for row in rows if row.defense == "none"), None)
    return [
        DefenseRow(
            name="No defense" if row.defense == "none" else formatting.capitalize_first(row.defense),
            detail=_row_detail(row),
            note=row.note or "",
            cells=(*(_defense_cell(column, row, undefended) for column in columns), *_cost_cells(row, cpu_seconds)),
        )
        for row in rows
    ]


def _cost_cells(row: DefenseRecord, cpu_seconds: Mapping[str, Any]) -> list[DefenseCell]:
    """What it costs where it costs most, and the CPU seconds of a run, means over the runs of all undefended arms."""
    cells = [DefenseCell(formatting.percent_number(row.cost), formatting.MISSING, "", Markup(""))]
    for part in ("make", "ask") if cpu_seconds else ():
        seconds = (cpu_seconds.get(row.defense) or {}).get(part) or {}
        center, *ends = (formatting.decimal(seconds.get(name), 1) for name in ("mean", "low", "high"))
        interval = formatting.MISSING if formatting.MISSING in ends else f"[{ends[0]},{formatting.NBSP}{ends[1]}]"
        cells.append(DefenseCell(center, interval, "", Markup("")))
    return cells


def _row_detail(row: DefenseRecord) -> str:
    parts = [f"{row.kind} data" if row.kind else "", f"“{row.system}” prompt" if row.system else ""]
    parts = [" and ".join(row.changes)] if row.changes else parts
    parts += ["shown safe" if row.safe else ""]
    parts += [f"step {row.step}" if row.step is not None else "", formatting.count(row.runs, "run") if row.runs else ""]
    return " · ".join(filter(None, parts))


def _defense_cell(column: DefenseColumn, row: DefenseRecord, undefended: DefenseRecord | None) -> DefenseCell:
    measured, baseline = column.value(row), column.value(undefended) if undefended is not None else None
    rate, baseline_rate = mean_or_none(measured), mean_or_none(baseline)
    change = ""
    if rate is not None and baseline_rate is not None and row is not undefended:
        change = formatting.points(rate - baseline_rate)
    interval = formatting.bracket(measured.low, measured.high) if measured is not None and rate is not None else ""
    return DefenseCell(
        formatting.percent_number(rate), interval or formatting.MISSING, change, _rate_bar(rate, column.group)
    )


def _rate_bar(rate: float | None, group: str) -> Markup:
    if rate is None:
        return Markup("")
    filled = tag("rect", width=f"{100 * rate:.1f}%", height=3, class_=f"bar b-{BAR_CLASSES.get(group, group)}")
    ground = tag("rect", width="100%", height=3, class_="bar ground")
    return tag("svg", ground, filled, class_="databar", aria_hidden="true", width="100%", height=3)
