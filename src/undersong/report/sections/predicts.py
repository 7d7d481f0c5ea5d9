"""Which axis goes along with the damage: alone, together with the others, and how sure the largest is."""

from __future__ import annotations

from collections.abc import Iterator

from undersong.report import formatting
from undersong.report.summary import rate_name
from undersong.report.tables import Table, training_label
from undersong.results.schema import Results
from undersong.results.schema_outcomes import ProximityVsJsrRecord
from undersong.results.schema_screening import ValueWithInterval

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
        filter(None, (record.set, formatting.modality_label(record.modality) if record.modality else ""))
    )
    condition = f"{training_label(record.train_modality)} · {prompt_label} ({record.points} selections, {record.replicates} runs)"
    for predictor in record.predictors:
        joint = formatting.MISSING if predictor.joint is None else _points_interval(predictor.joint)
        largest = formatting.MISSING if predictor.dominant is None else formatting.percent(predictor.dominant)
        inflation = formatting.decimal(predictor.inflation, 1)
        yield (
            predictor.name,
            record.model or formatting.MISSING,
            condition,
            _decimal_interval(predictor.rank),
            _points_interval(predictor.slope),
            joint,
            inflation,
            largest,
        )


def _decimal_interval(value: ValueWithInterval) -> str:
    center, low, high = (formatting.decimal(number, 2) for number in (value.value, value.low, value.high))
    return center if value.low is None else f"{center} [{low},{formatting.NBSP}{high}]"


def _points_interval(value: ValueWithInterval) -> str:
    return " ".join(filter(None, (formatting.points(value.value), formatting.bracket(value.low, value.high))))
