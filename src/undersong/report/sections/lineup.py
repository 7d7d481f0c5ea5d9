"""Every arm beside the base, as a row each with its interval drawn: the picture under the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import words
from undersong.report.case import Case, Measured
from undersong.report.sections.arms import AGAINST
from undersong.report.summary import Estimate, relation
from undersong.report.svg import Scale, percent_axis, strip

MOST = 12  # arms that are all shown at once; of more, the highest are
HIGHEST = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One condition in the picture under the headline."""

    label: str
    note: str
    kind: str
    hollow: bool
    estimate: Estimate
    flag: str = ""  # that it is the worst
    against: str = ""  # how it stands to the base


Drawn = tuple[tuple[Row, Markup], ...]


@dataclass(frozen=True, slots=True)
class Lineup:
    """`further`: arms that are folded away, for there are many; `axis`: (percent of the width, label)."""

    rows: Drawn
    further: Drawn
    axis: tuple[tuple[float, str], ...]


def build(found: Case) -> Lineup:
    """The base, every arm, and the worst one under other system texts."""
    shown, further = _rows(found)
    pictures, axis = _pictures([*shown, *further], found.base)
    drawn = tuple(zip([*shown, *further], pictures, strict=True))
    return Lineup(drawn[: len(shown)], drawn[len(shown) :], axis)


def _rows(found: Case) -> tuple[list[Row], list[Row]]:
    """What is shown, and what is folded away."""
    first = [Row("Base", "before fine-tuning", "base", False, found.base)] if found.base else []
    measured = list(found.measured)
    further: list[Row] = []
    if len(measured) > MOST:
        measured.sort(key=lambda item: -item.estimate.mean)
        further = [_row(found, item) for item in measured[HIGHEST:]]
        measured = measured[:HIGHEST]
    last = [
        Row(f"System text “{item.system}”", item.arm.label, item.arm.kind, True, item.estimate)
        for item in found.prompted
    ]
    return [*first, *(_row(found, item) for item in measured), *last], further


def _row(found: Case, item: Measured) -> Row:
    label, _, note = item.arm.label.partition(", ")
    decided = relation(item.estimate, found.base, found.against_base(item)) if found.base is not None else "unknown"
    worst = item is found.worst and found.n_arms > 1 and not found.tied
    return Row(
        label=words.sentence(label),
        note=note,
        kind=item.arm.kind,
        hollow=False,
        estimate=item.estimate,
        flag="worst" if worst else "",
        against=AGAINST[decided].removeprefix(", "),
    )


def _pictures(rows: Sequence[Row], base: Estimate | None) -> tuple[list[Markup], tuple[tuple[float, str], ...]]:
    numbers = [row.estimate for row in rows]
    top, at = percent_axis(max((max(number.mean, number.high or 0.0) for number in numbers), default=1.0))
    x = Scale((0.0, top), (0.0, 100.0))
    reference = base.mean if base else None
    pictures = [
        strip(
            row.estimate.mean, row.estimate.low, row.estimate.high, x, row.kind,
            "hollow" if row.hollow else "", reference, [value for value, _ in at],
        )
        for row in rows
    ]  # fmt: skip
    return pictures, tuple((x(value), label) for value, label in at)
