"""The defense section: columns and rows of the safety-utility table, one finding per defense, and the
recommendations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.svg import tag
from undersong.pages.tables import PanelGroup, Table, training_label
from undersong.research.report import pareto
from undersong.results.schema import DefenseCpuSeconds, Results
from undersong.results.schema_base import ValueWithInterval
from undersong.results.schema_defenses import CostPart, DefenseRecommendation, DefenseRecord
from undersong.settings.judge_names import RATE_LABELS


@dataclass(frozen=True, slots=True)
class DefenseColumn:
    """Column of the defense table: the group of its rate, the prompt set, and the modality of the prompts."""

    group: str  # jsr | jsr_by_prompt_set | after_retuning | retention | over_refusal | utility
    prompt_set: str  # "" of jsr, after_retuning and retention
    modality: str  # "" of retention

    def value(self, row: DefenseRecord) -> ValueWithInterval | None:
        """Return the row's mean and interval in this column; None if it was not measured."""
        if self.group == "retention":
            return row.retention
        if self.group in ("jsr", "after_retuning"):
            return (row.jsr if self.group == "jsr" else row.after_retuning).get(self.modality)
        tables = {"jsr_by_prompt_set": row.jsr_by_prompt_set, "over_refusal": row.over_refusal, "utility": row.utility}
        return tables[self.group].get(self.prompt_set, {}).get(self.modality)


def defense_columns(rows: Sequence[DefenseRecord]) -> list[DefenseColumn]:
    """Return the columns with a measured value: JSR, retention, over-refusal, utility; audio before text."""
    sets = list(dict.fromkeys(name for row in rows for name in (*row.over_refusal, *row.utility)))
    candidates = [DefenseColumn("jsr", "", modality) for modality in ("audio", "text")]
    harm_sets = list(dict.fromkeys(name for row in rows for name in row.jsr_by_prompt_set))
    further_harm_sets = harm_sets[1:]
    candidates += [
        DefenseColumn("jsr_by_prompt_set", name, modality)
        for name in further_harm_sets
        for modality in ("audio", "text")
    ]
    candidates += [DefenseColumn("after_retuning", "", modality) for modality in ("audio", "text")]
    candidates.append(DefenseColumn("retention", "", ""))
    candidates += [
        DefenseColumn(group, s, m) for group in ("over_refusal", "utility") for s in sets for m in ("audio", "text")
    ]
    return [column for column in candidates if any(mean_or_none(column.value(row)) is not None for row in rows)]


def column_heading(group: str, prompt_set: str, rate: str) -> str:
    """Return the heading over the columns of one group and prompt set; `rate` is the page's name for the JSR."""
    return {
        "jsr": rate,
        "retention": "Still learned",
        "after_retuning": f"{rate}, tuned again",
        "jsr_by_prompt_set": f"{rate}, {prompt_set}",
        "over_refusal": f"Over-refusal, {prompt_set}",
        "utility": f"Utility, {prompt_set}",
    }[group]


def mean_or_none(interval: ValueWithInterval | None) -> float | None:
    """Return the mean, as a share; None if it was not measured."""
    return interval.value if interval is not None else None


def defense_findings(
    title: str, rows: Sequence[DefenseRecord], columns: Sequence[DefenseColumn], rate: str
) -> list[str]:
    """Return one sentence per defense of an undefended arm; empty if `rows` lack the undefended arm itself.

    The sentence uses the prompts on which the rate is highest without a defense.

    Args:
        title: Name of the undefended arm.
        rows: Results of the arm without a defense and with each one.
        columns: Columns of the defense table.
        rate: The page's name for the JSR.
    """
    undefended = next((row for row in rows if row.defense == "none"), None)
    if undefended is None:
        return []
    jsr_columns = [
        column for column in columns if column.group == "jsr" and mean_or_none(column.value(undefended)) is not None
    ]
    worst_column = max(
        jsr_columns, key=lambda column: mean_or_none(column.value(undefended)) or 0.0, default=None
    )  # the column with the highest undefended rate
    defense_rows = [row for row in rows if row is not undefended]
    effects = [
        (
            row,
            _jsr_effect(worst_column, row, undefended, rate) if worst_column else "",
            _cost_phrase(row),
        )
        for row in defense_rows
    ]
    return [
        f"{formatting.capitalize_first(row.defense)}, {title[:1].lower()}{title[1:]}: "
        f"{'; '.join(filter(None, (effect, cost)))}."
        for row, effect, cost in effects
        if effect or cost
    ]


def _jsr_effect(column: DefenseColumn, row: DefenseRecord, undefended: DefenseRecord, rate: str) -> str:
    """Describe the effect of a defense ('JSR on spoken prompts 80.9 % without, 3.1 % with it') and run noise."""
    defended_rate, baseline = column.value(row), column.value(undefended)
    if defended_rate is None or baseline is None or defended_rate.value is None or baseline.value is None:
        return ""
    baseline_text, defended_text = formatting.percent(baseline.value), formatting.percent(defended_rate.value)
    text = (
        f"{rate} on {formatting.modality_label(column.modality)} prompts {baseline_text} without, "
        f"{defended_text} with it"
    )
    change = row.jsr_change.get(column.modality)
    return text if change is not None and change.significant else f"{text} (run noise alone may say so)"


def _cost_phrase(row: DefenseRecord) -> str:
    """The largest rise of over-refusal and the largest loss of utility."""
    parts = (
        ("over-refusal", row.over_refusal_rise, 1),
        ("utility", row.utility_loss, -1),
    )
    return "; ".join(_cost_part_phrase(name, part, sign) for name, part, sign in parts if part is not None)


def _cost_part_phrase(name: str, part: CostPart, sign: int) -> str:
    prompts = f"{part.prompt_set}, {formatting.modality_label(part.modality)}"
    return f"{name} {formatting.points(sign * part.loss)} points where it costs most ({prompts})"


BAR_CLASSES = {
    "jsr_by_prompt_set": "jsr",
    "after_retuning": "jsr",
    "over_refusal": "over-refusal",
    "retention": "utility",
}  # classes of the style sheet
DEFENSE_ORDER = ("none", "distant data", "system prompt")


@dataclass(frozen=True, slots=True)
class DefenseCell:
    """Number in the defense table and the text under it: a share in percent, drawn as a bar, or CPU seconds."""

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
    groups: tuple[PanelGroup, ...]  # the same as scatter plots, if there are several
    numbers: Table  # behind the pictures
    seconds: bool  # whether it is known what each took to make
    limited: bool  # whether anything says what is safe
    rate: str  # JSR, or non-refusal rate if the judge sees refusals only


def build_defense_table(results: Results) -> DefenseTable | None:
    """Build the defense section; None if no defense was measured."""
    columns = defense_columns(results.defense_tradeoffs)
    if not results.defense_tradeoffs or not columns:
        return None
    rate = RATE_LABELS[results.defense_tradeoffs[0].metric]
    heads: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        heads.setdefault((column.group, column.prompt_set), []).append(
            formatting.modality_label(column.modality) if column.modality else ""
        )
    groups = _rows_by_arm(results.defense_tradeoffs)
    cpu_seconds = results.provenance.cpu_seconds_by_defense if results.provenance is not None else {}
    cost_headings = ("at most", *(("CPU s to make", "CPU s to ask") if cpu_seconds else ()))
    return DefenseTable(
        heads=(
            *(
                (formatting.capitalize_first(column_heading(*key, rate)), tuple(modalities))
                for key, modalities in heads.items()
            ),
            ("Cost", cost_headings),
        ),
        blocks=tuple(DefenseBlock(title, tuple(_defense_rows(rows, columns, cpu_seconds))) for title, rows in groups),
        findings=tuple(finding for title, rows in groups for finding in defense_findings(title, rows, columns, rate)),
        recommended=tuple(_recommendation_lines(results)),
        groups=tuple(pareto.tradeoff_groups(groups, rate)),
        numbers=pareto.tradeoff_table(groups, rate),
        seconds=bool(cpu_seconds),
        limited=any(row.safe is not None for row in results.defense_tradeoffs),
        rate=rate,
    )


def _recommendation_lines(results: Results) -> list[str]:
    several_arms = len(results.recommendations) > 1
    return [
        f"{f'{recommendation_arm(recommendation, results)}: ' if several_arms else ''}Recommended: "
        f"{recommendation.defense or 'none'}. {recommendation.reason}"
        for recommendation in results.recommendations
    ]


def recommendation_arm(recommendation: DefenseRecommendation, results: Results) -> str:
    """The undefended arm that a recommendation is about, by what differs among them."""
    designs = {
        (other_recommendation.family, other_recommendation.axis, other_recommendation.fraction)
        for other_recommendation in results.recommendations
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
    """Group the rows by undefended arm, because only these can be compared."""
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
    rows: Sequence[DefenseRecord], columns: Sequence[DefenseColumn], cpu_seconds: Mapping[str, DefenseCpuSeconds]
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


def _cost_cells(row: DefenseRecord, cpu_seconds: Mapping[str, DefenseCpuSeconds]) -> list[DefenseCell]:
    """What it costs where it costs most, and the CPU seconds of a run, means over the runs of all undefended arms."""
    cells = [DefenseCell(formatting.percent_number(row.max_cost), formatting.MISSING, "", Markup(""))]
    cost = cpu_seconds.get(row.defense)
    parts = (ValueWithInterval(), ValueWithInterval()) if cost is None else (cost.training, cost.generation)
    for seconds in parts if cpu_seconds else ():
        center, *ends = (formatting.decimal(number, 1) for number in (seconds.value, seconds.low, seconds.high))
        interval = formatting.MISSING if formatting.MISSING in ends else f"[{ends[0]},{formatting.NBSP}{ends[1]}]"
        cells.append(DefenseCell(center, interval, "", Markup("")))
    return cells


def _row_detail(row: DefenseRecord) -> str:
    parts = [f"{row.kind} data", f"“{row.system}” prompt"]
    parts = [" and ".join(row.changes)] if row.changes else parts
    parts += ["shown safe" if row.safe else ""]
    parts += [f"step {row.step}", formatting.count(row.n_runs, "run")]
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
