"""Columns of the table of defenses: JSR, what is still learned, over-refusal and utility, by set and modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from undersong.report.priced import DefenseRecord, MeanWithInterval


@dataclass(frozen=True, slots=True)
class DefenseColumn:
    """Where a column finds its number in a row: which rate, of which set, on prompts of which modality."""

    group: str  # jsr | jsr_by_set | again | kept | over_refusal | utility
    set: str  # "" of jsr, again and kept
    modality: str  # "" of kept

    def value(self, row: DefenseRecord) -> MeanWithInterval | None:
        """The row's mean and interval here; None where that was not measured."""
        if self.group == "kept":
            return row.kept
        if self.group in ("jsr", "again"):
            return (row.jsr if self.group == "jsr" else row.again).get(self.modality)
        table = {"jsr_by_set": row.jsr_by_set, "over_refusal": row.over_refusal}.get(self.group, row.utility)
        return table.get(self.set, {}).get(self.modality)


def defense_columns(rows: Sequence[DefenseRecord]) -> list[DefenseColumn]:
    """Those with something measured: JSR, still learned, over-refusal, utility; audio before text."""
    sets = list(dict.fromkeys(name for row in rows for name in (*row.over_refusal, *row.utility)))
    candidates = [DefenseColumn("jsr", "", modality) for modality in ("audio", "text")]
    harm_sets = list(dict.fromkeys(name for row in rows for name in row.jsr_by_set))
    further_harm_sets = harm_sets[1:]
    candidates += [
        DefenseColumn("jsr_by_set", name, modality) for name in further_harm_sets for modality in ("audio", "text")
    ]
    candidates += [DefenseColumn("again", "", modality) for modality in ("audio", "text")]
    candidates.append(DefenseColumn("kept", "", ""))
    candidates += [
        DefenseColumn(group, s, m) for group in ("over_refusal", "utility") for s in sets for m in ("audio", "text")
    ]
    return [column for column in candidates if any(mean_or_none(column.value(row)) is not None for row in rows)]


def column_heading(group: str, set: str, rate: str) -> str:
    """What stands over the columns of one group and set; `rate`: what the page calls what gets through."""
    return {
        "jsr": rate,
        "kept": "Still learned",
        "again": f"{rate}, tuned again",
        "jsr_by_set": f"{rate}, {set}",
        "over_refusal": f"Over-refusal, {set}",
        "utility": f"Utility, {set}",
    }[group]


def mean_or_none(interval: MeanWithInterval | None) -> float | None:
    """Its mean, as a share; None where nothing was measured."""
    return interval.mean if interval is not None else None
