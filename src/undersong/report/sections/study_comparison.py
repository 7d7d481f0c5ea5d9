"""The headline of every study on one scale: base and worst arm, and the worst arm's counterparts and system texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import formatting
from undersong.report.arm_comparisons import HeadlineData
from undersong.report.beside.comparable import StudyComparison
from undersong.report.sections.arms import RELATION_TO_BASE
from undersong.report.summary import Estimate, relation
from undersong.report.svg import LinearScale, interval_strip, percent_axis
from undersong.report.tables import NumberCell, Table, percent_cell
from undersong.results.schema import model_names


@dataclass(frozen=True, slots=True)
class StudyRateRow:
    """A base, arm or system text of one study, drawn; `against`: how it stands to the study's base, or empty."""

    label: str
    note: str
    estimate: Estimate
    against: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class StudyRateBlock:
    """One study, by its model."""

    name: str
    model: str
    differs: tuple[str, ...]
    rows: tuple[StudyRateRow, ...]


@dataclass(frozen=True, slots=True)
class StudyRates:
    """The prompts of one modality."""

    title: str
    asked: str
    rate: str
    blocks: tuple[StudyRateBlock, ...]
    axis: tuple[tuple[float, str], ...]
    numbers: Table


RateLine = tuple[str, str, str, bool, Estimate, str]  # label, note, kind, hollow, number, against the base


def build_study_rates(studies: Sequence[StudyComparison]) -> tuple[StudyRates, ...]:
    """Spoken prompts, then typed, where any study asked them."""
    modalities = [
        modality for modality in ("audio", "text") if any(study.headline(modality) is not None for study in studies)
    ]
    return tuple(_study_rates(studies, modality) for modality in modalities)


def _study_rates(studies: Sequence[StudyComparison], modality: str) -> StudyRates:
    study_lines = [
        (study, list(_rate_lines(headline))) for study in studies if (headline := study.headline(modality)) is not None
    ]
    numbers = [number for _, lines in study_lines for *_, number, _ in lines]
    top, tick_marks = percent_axis(max((max(number.mean, number.high or 0.0) for number in numbers), default=1.0))
    x = LinearScale((0.0, top), (0.0, 100.0))
    grid = [value for value, _ in tick_marks]
    blocks = []
    for study, lines in study_lines:
        headline = study.headline(modality)
        base = headline.base.mean if headline is not None and headline.base is not None else None
        rows = tuple(
            StudyRateRow(
                label,
                note,
                n,
                relation_to_base,
                interval_strip(n.mean, n.low, n.high, x, kind, "hollow" * hollow, base, grid),
            )
            for label, note, kind, hollow, n, relation_to_base in lines
        )
        blocks.append(
            StudyRateBlock(study.name, formatting.join_items(model_names(study.results)), study.differs, rows)
        )
    prompt_label, rate = (
        formatting.modality_label(modality),
        next(iter(study_lines))[0].headlines[0].verdict_filter.rate_label,
    )
    return StudyRates(
        title=f"{formatting.capitalize_first(prompt_label)} harmful prompts",
        asked=prompt_label,
        rate=rate,
        blocks=tuple(blocks),
        axis=tuple((x(value), label) for value, label in tick_marks),
        numbers=_rate_table(study_lines, f"{rate} on {prompt_label} harmful prompts", rate),
    )


def _rate_lines(headline: HeadlineData) -> Iterator[RateLine]:
    if headline.base is not None:
        yield "Base", "before fine-tuning", "base", False, headline.base, ""
    for item in filter(None, (headline.worst, *headline.counterparts)):
        state = (
            relation(item.estimate, headline.base, headline.comparison_to_base(item))
            if headline.base is not None
            else "unknown"
        )
        name = (
            "Worst arm"
            if item is headline.worst and headline.n_arms > 1
            else f"{formatting.capitalize_first(item.arm.kind)} arm"
        )
        yield name, item.arm.label, item.arm.kind, False, item.estimate, RELATION_TO_BASE[state].removeprefix(", ")
    for item in headline.system_variants:
        yield f"System text “{item.system}”", item.arm.label, item.arm.kind, True, item.estimate, ""


def _rate_table(study_lines: Sequence[tuple[StudyComparison, Sequence[RateLine]]], caption: str, rate: str) -> Table:
    rows = tuple(
        (
            study.name, label, note, _rate_cell(number), str(number.runs), f"{number.n:,}", relation_to_base or formatting.MISSING,
            "; ".join(study.differs) or formatting.MISSING,
        )
        for study, lines in study_lines
        for label, note, _, _, number, relation_to_base in lines
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


def _rate_cell(number: Estimate) -> NumberCell:
    interval = formatting.bracket(number.low, number.high)
    return percent_cell(number.mean, number.low, number.high, "" if interval else "no interval")
