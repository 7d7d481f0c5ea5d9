"""Columns of the table of defenses: JSR, what is still learned, over-refusal and utility, by set and modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from undersong.report.priced import Defense, Interval


@dataclass(frozen=True, slots=True)
class Column:
    """Where a column finds its number in a row: which rate, of which set, on prompts of which modality."""

    group: str  # jsr | jsr_by_set | again | kept | over_refusal | utility
    set: str  # "" of jsr, again and kept
    modality: str  # "" of kept

    def of(self, row: Defense) -> Interval | None:
        """The row's mean and interval here; None where that was not measured."""
        if self.group == "kept":
            return row.kept
        if self.group in ("jsr", "again"):
            return (row.jsr if self.group == "jsr" else row.again).get(self.modality)
        table = {"jsr_by_set": row.jsr_by_set, "over_refusal": row.over_refusal}.get(self.group, row.utility)
        return table.get(self.set, {}).get(self.modality)


def columns_of(rows: Sequence[Defense]) -> list[Column]:
    """Those with something measured: JSR, still learned, over-refusal, utility; audio before text."""
    sets = list(dict.fromkeys(name for row in rows for name in (*row.over_refusal, *row.utility)))
    wanted = [Column("jsr", "", modality) for modality in ("audio", "text")]
    harmful = list(dict.fromkeys(name for row in rows for name in row.jsr_by_set))
    first_is_the_jsr = harmful[1:]
    wanted += [Column("jsr_by_set", name, modality) for name in first_is_the_jsr for modality in ("audio", "text")]
    wanted += [Column("again", "", modality) for modality in ("audio", "text")]
    wanted.append(Column("kept", "", ""))
    wanted += [Column(group, s, m) for group in ("over_refusal", "utility") for s in sets for m in ("audio", "text")]
    return [column for column in wanted if any(mean_of(column.of(row)) is not None for row in rows)]


def head_of(group: str, set: str, rate: str) -> str:
    """What stands over the columns of one group and set; `rate`: what the page calls what gets through."""
    return {
        "jsr": rate,
        "kept": "Still learned",
        "again": f"{rate}, tuned again",
        "jsr_by_set": f"{rate}, {set}",
        "over_refusal": f"Over-refusal, {set}",
        "utility": f"Utility, {set}",
    }[group]


def mean_of(interval: Interval | None) -> float | None:
    """Its mean, as a share; None where nothing was measured."""
    return interval.mean if interval is not None else None
