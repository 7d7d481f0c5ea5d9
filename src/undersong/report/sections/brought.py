"""What each defense brought and what it cost, a sentence each.  It never says more than paired runs show."""

from __future__ import annotations

from collections.abc import Sequence

from undersong.report import formatting
from undersong.report.columns import DefenseColumn, mean_or_none
from undersong.report.priced import DefenseRecord, PairedJsrChange


def defense_findings(
    title: str, rows: Sequence[DefenseRecord], columns: Sequence[DefenseColumn], rate: str
) -> list[str]:
    """A sentence for each defense of one undefended arm, which `title` names; none where `rows` lack that arm's own.

    `rate`: what the page calls what gets through; it is told of the prompts on which it is highest without a defense.
    """
    undefended = next((row for row in rows if row.defense == "none"), None)
    if undefended is None:
        return []
    jsr_columns = [
        column for column in columns if column.group == "jsr" and mean_or_none(column.value(undefended)) is not None
    ]
    worst_column = max(
        jsr_columns, key=lambda column: mean_or_none(column.value(undefended)) or 0.0, default=None
    )  # where there is most to bring
    defense_rows = [row for row in rows if row is not undefended]
    effects = [
        (
            row,
            _jsr_effect(worst_column, row, undefended, rate) if worst_column else "",
            _cost_phrase(columns, row, undefended),
        )
        for row in defense_rows
    ]
    return [
        f"{formatting.capitalize_first(row.defense)}, {title[:1].lower()}{title[1:]}: {'; '.join(filter(None, (effect, cost)))}."
        for row, effect, cost in effects
        if effect or cost
    ]


def _jsr_effect(column: DefenseColumn, row: DefenseRecord, undefended: DefenseRecord, rate: str) -> str:
    """'JSR on spoken prompts 80.9 % without, 3.1 % with it', and whether run noise alone may say so."""
    defended_rate, baseline = column.value(row), column.value(undefended)
    if defended_rate is None or baseline is None or defended_rate.mean is None or baseline.mean is None:
        return ""
    baseline_text, defended_text = formatting.percent(baseline.mean), formatting.percent(defended_rate.mean)
    text = f"{rate} on {formatting.modality_label(column.modality)} prompts {baseline_text} without, {defended_text} with it"
    change = row.against.get(column.modality)
    return text if change is not None and _is_significant(change) else f"{text} (run noise alone may say so)"


def _is_significant(change: PairedJsrChange) -> bool:
    """Whether the interval of the difference, paired over runs, leaves 0 out; without one as the results say."""
    if change.told is not None:
        return change.told
    return change.low is not None and change.high is not None and not change.low <= 0 <= change.high


def _cost_phrase(columns: Sequence[DefenseColumn], row: DefenseRecord, undefended: DefenseRecord) -> str:
    """The largest rise of over-refusal and the largest loss of utility among all columns."""
    phrases = []
    for group, name, sign in (("over_refusal", "over-refusal", 1), ("utility", "utility", -1)):
        changes = [
            (defended_mean - baseline, column)
            for column in columns
            if column.group == group
            and (defended_mean := mean_or_none(column.value(row))) is not None
            and (baseline := mean_or_none(column.value(undefended))) is not None
        ]
        if changes:
            change, column = max(changes, key=lambda item: sign * item[0])
            worst_prompts = f"{column.set}, {formatting.modality_label(column.modality)}"
            phrases.append(f"{name} {formatting.points(change)} points where it costs most ({worst_prompts})")
    return "; ".join(phrases)
