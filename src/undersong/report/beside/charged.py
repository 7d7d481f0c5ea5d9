"""What each defense brought in each study, and its price: the worst of all prompts' modalities and sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from undersong.report import formatting
from undersong.report.beside.comparable import StudyComparison
from undersong.report.priced import DefenseRecord, MeanWithInterval
from undersong.report.sections.defenses import undefended_arm_title
from undersong.report.tables import NumberCell, Table, percent_cell


def build_defense_costs(studies: Sequence[StudyComparison]) -> Table | None:
    """A row a study, arm and defense; None where no study measured one."""
    rows = tuple(_defense_cost_row(study, defense) for study in studies for defense in study.results.defenses)
    head = (
        *("Study", "Trained", "Defense", "runs", "rate where it is highest, % [95 %]", "over-refusal, most, %"),
        *("utility, least, %", "costs at most, %", "shown safe", "not comparable"),
    )
    return Table("Defenses of every study, charged", head, rows, names=3) if rows else None


def _defense_cost_row(study: StudyComparison, defense: DefenseRecord) -> tuple[str | NumberCell, ...]:
    highest_rate = max(
        _measured_intervals(defense.jsr.values()), key=lambda interval: interval.mean or 0.0, default=MeanWithInterval()
    )
    highest_over_refusal = max(_set_means(defense.over_refusal), default=None)
    lowest_utility = min(_set_means(defense.utility), default=None)
    safe = {True: "yes", False: "no", None: formatting.MISSING}[defense.safe]
    return (
        study.name, undefended_arm_title(defense), "no defense" if defense.defense == "none" else defense.defense, formatting.value_text(defense.runs),
        percent_cell(highest_rate.mean, highest_rate.low, highest_rate.high), percent_cell(highest_over_refusal), percent_cell(lowest_utility), percent_cell(defense.cost), safe,
        "yes" if study.differs else formatting.MISSING,
    )  # fmt: skip


def _set_means(sets: dict[str, dict[str, MeanWithInterval | None]]) -> list[float]:
    return [
        interval.mean
        for by_modality in sets.values()
        for interval in _measured_intervals(by_modality.values())
        if interval.mean is not None
    ]


def _measured_intervals(intervals: Iterable[MeanWithInterval | None]) -> list[MeanWithInterval]:
    return [interval for interval in intervals if interval is not None and interval.mean is not None]
