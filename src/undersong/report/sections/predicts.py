"""Which axis goes along with the damage: alone, together with the others, and how sure the largest is."""

from __future__ import annotations

from collections.abc import Iterator

from undersong.report import words
from undersong.report.beforehand import Spread
from undersong.report.panels import Table, trained
from undersong.report.schema import Results
from undersong.report.summary import rate_name
from undersong.report.variation import Predicts

HEAD = (
    "Axis", "Base", "trained, asked", "rank correlation", "alone, points an SD", "with the others", "VIF", "largest in",
)  # fmt: skip


def build(results: Results) -> Table | None:
    """None where the results say nothing of it."""
    rows = tuple(row for one in results.predicts for row in _rows(one))
    title = f"Rise of the {rate_name(results)} against nearness of the training samples, over selections"
    return Table(title, HEAD, rows, 3) if rows else None


def notes(results: Results) -> tuple[str, ...]:
    """What could not be told, once each."""
    return tuple(dict.fromkeys(one.note for one in results.predicts if one.note))


def _rows(one: Predicts) -> Iterator[tuple[str, ...]]:
    asked = " · ".join(filter(None, (one.set, words.spoken(one.modality) if one.modality else "")))
    where = f"{trained(one.train_modality)} · {asked} ({one.points} selections, {one.replicates} runs)"
    for axis in one.predictors:
        joint = words.NONE if axis.joint is None else _points(axis.joint)
        largest = words.NONE if axis.dominant is None else words.percent(axis.dominant)
        inflation = words.decimal(axis.inflation, 1)
        yield (
            axis.name,
            one.model or words.NONE,
            where,
            _plain(axis.rank),
            _points(axis.slope),
            joint,
            inflation,
            largest,
        )


def _plain(value: Spread) -> str:
    middle, low, high = (words.decimal(number, 2) for number in (value.value, value.low, value.high))
    return middle if value.low is None else f"{middle} [{low},{words.NBSP}{high}]"


def _points(value: Spread) -> str:
    return " ".join(filter(None, (words.points(value.value), words.bracket(value.low, value.high))))
