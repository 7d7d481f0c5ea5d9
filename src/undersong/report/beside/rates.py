"""The headline of every study on one scale: base and worst arm, and the worst arm's counterparts and system texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import words
from undersong.report.beside.comparable import Beside
from undersong.report.case import Case
from undersong.report.panels import Table, Value, share
from undersong.report.schema import models
from undersong.report.sections.arms import AGAINST
from undersong.report.summary import Estimate, relation
from undersong.report.svg import Scale, percent_axis, strip


@dataclass(frozen=True, slots=True)
class Row:
    """A base, arm or system text of one study, drawn; `against`: how it stands to the study's base, or empty."""

    label: str
    note: str
    estimate: Estimate
    against: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class Block:
    """One study, by its model."""

    name: str
    model: str
    differs: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Rates:
    """The prompts of one modality."""

    title: str
    asked: str
    rate: str
    blocks: tuple[Block, ...]
    axis: tuple[tuple[float, str], ...]
    numbers: Table


Line = tuple[str, str, str, bool, Estimate, str]  # label, note, kind, hollow, number, against the base


def build(studies: Sequence[Beside]) -> tuple[Rates, ...]:
    """Spoken prompts, then typed, where any study asked them."""
    asked = [m for m in ("audio", "text") if any(study.case(m) is not None for study in studies)]
    return tuple(_rates(studies, modality) for modality in asked)


def _rates(studies: Sequence[Beside], modality: str) -> Rates:
    found = [(study, list(_lines(case))) for study in studies if (case := study.case(modality)) is not None]
    numbers = [number for _, lines in found for *_, number, _ in lines]
    top, at = percent_axis(max((max(number.mean, number.high or 0.0) for number in numbers), default=1.0))
    x = Scale((0.0, top), (0.0, 100.0))
    grid = [value for value, _ in at]
    blocks = []
    for study, lines in found:
        case = study.case(modality)
        base = case.base.mean if case is not None and case.base is not None else None
        rows = tuple(
            Row(label, note, n, against, strip(n.mean, n.low, n.high, x, kind, "hollow" * hollow, base, grid))
            for label, note, kind, hollow, n, against in lines
        )
        blocks.append(Block(study.name, words.listed(models(study.found)), study.differs, rows))
    spoken, rate = words.spoken(modality), next(iter(found))[0].cases[0].view.rate
    return Rates(
        title=f"{words.sentence(spoken)} harmful prompts",
        asked=spoken,
        rate=rate,
        blocks=tuple(blocks),
        axis=tuple((x(value), label) for value, label in at),
        numbers=_table(found, f"{rate} on {spoken} harmful prompts", rate),
    )


def _lines(case: Case) -> Iterator[Line]:
    if case.base is not None:
        yield "Base", "before fine-tuning", "base", False, case.base, ""
    for item in filter(None, (case.worst, *case.others)):
        decided = relation(item.estimate, case.base, case.against_base(item)) if case.base is not None else "unknown"
        name = "Worst arm" if item is case.worst and case.n_arms > 1 else f"{words.sentence(item.arm.kind)} arm"
        yield name, item.arm.label, item.arm.kind, False, item.estimate, AGAINST[decided].removeprefix(", ")
    for item in case.prompted:
        yield f"System text “{item.system}”", item.arm.label, item.arm.kind, True, item.estimate, ""


def _table(found: Sequence[tuple[Beside, Sequence[Line]]], caption: str, rate: str) -> Table:
    rows = tuple(
        (
            study.name, label, note, _rate(number), str(number.runs), f"{number.n:,}", against or words.NONE,
            "; ".join(study.differs) or words.NONE,
        )
        for study, lines in found
        for label, note, _, _, number, against in lines
    )  # fmt: skip
    head = (
        "Study",
        "What",
        "Arm",
        f"{rate}, % [95 %]",
        "runs",
        "n, prompts a run",
        "against its base",
        "not comparable",
    )
    return Table(caption, head, rows, names=3)


def _rate(number: Estimate) -> Value:
    known = words.bracket(number.low, number.high)
    return share(number.mean, number.low, number.high, "" if known else "no interval")
