"""Which axis goes along with the damage: alone, together with the others, and how sure the largest is."""

from __future__ import annotations

from collections.abc import Iterator

from undersong.report import words
from undersong.report.beforehand import ValueWithInterval
from undersong.report.panels import Table, training_label
from undersong.report.schema import Results
from undersong.report.summary import rate_name
from undersong.report.variation import ProximityVsJsrRecord

PROXIMITY_HEADINGS = (
    "Axis", "Base", "trained, asked", "rank correlation", "alone, points an SD", "with the others", "VIF", "largest in",
)  # fmt: skip


def build_proximity_table(results: Results) -> Table | None:
    """None where the results say nothing of it."""
    rows = tuple(row for record in results.predicts for row in _proximity_rows(record))
    title = f"Rise of the {rate_name(results)} against nearness of the training samples, over selections"
    return Table(title, PROXIMITY_HEADINGS, rows, 3) if rows else None


def proximity_notes(results: Results) -> tuple[str, ...]:
    """What could not be told, once each."""
    return tuple(dict.fromkeys(record.note for record in results.predicts if record.note))


def _proximity_rows(record: ProximityVsJsrRecord) -> Iterator[tuple[str, ...]]:
    prompt_label = " · ".join(
        filter(None, (record.set, words.modality_label(record.modality) if record.modality else ""))
    )
    condition = f"{training_label(record.train_modality)} · {prompt_label} ({record.points} selections, {record.replicates} runs)"
    for predictor in record.predictors:
        joint = words.MISSING if predictor.joint is None else _points_interval(predictor.joint)
        largest = words.MISSING if predictor.dominant is None else words.percent(predictor.dominant)
        inflation = words.decimal(predictor.inflation, 1)
        yield (
            predictor.name,
            record.model or words.MISSING,
            condition,
            _decimal_interval(predictor.rank),
            _points_interval(predictor.slope),
            joint,
            inflation,
            largest,
        )


def _decimal_interval(value: ValueWithInterval) -> str:
    center, low, high = (words.decimal(number, 2) for number in (value.value, value.low, value.high))
    return center if value.low is None else f"{center} [{low},{words.NBSP}{high}]"


def _points_interval(value: ValueWithInterval) -> str:
    return " ".join(filter(None, (words.points(value.value), words.bracket(value.low, value.high))))
