"""What each defense brought in each study, and its price: the worst of all prompts' modalities and sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from undersong.report import words
from undersong.report.beside.comparable import Beside
from undersong.report.panels import Table, Value, share
from undersong.report.priced import Defense, Interval
from undersong.report.sections.defended import arm_title


def build(studies: Sequence[Beside]) -> Table | None:
    """A row a study, arm and defense; None where no study measured one."""
    rows = tuple(_row(study, row) for study in studies for row in study.found.defenses)
    head = (
        *("Study", "Trained", "Defense", "runs", "rate where it is highest, % [95 %]", "over-refusal, most, %"),
        *("utility, least, %", "costs at most, %", "shown safe", "not comparable"),
    )
    return Table("Defenses of every study, charged", head, rows, names=3) if rows else None


def _row(study: Beside, row: Defense) -> tuple[str | Value, ...]:
    attacked = max(_measured(row.jsr.values()), key=lambda one: one.mean or 0.0, default=Interval())
    refused = max(_means(row.over_refusal), default=None)
    right = min(_means(row.utility), default=None)
    safe = {True: "yes", False: "no", None: words.NONE}[row.safe]
    return (
        study.name, arm_title(row), "no defense" if row.defense == "none" else row.defense, words.plain(row.runs),
        share(attacked.mean, attacked.low, attacked.high), share(refused), share(right), share(row.cost), safe,
        "yes" if study.differs else words.NONE,
    )  # fmt: skip


def _means(sets: dict[str, dict[str, Interval | None]]) -> list[float]:
    return [one.mean for modes in sets.values() for one in _measured(modes.values()) if one.mean is not None]


def _measured(intervals: Iterable[Interval | None]) -> list[Interval]:
    return [one for one in intervals if one is not None and one.mean is not None]
