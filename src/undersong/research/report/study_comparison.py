"""Sections of the multi-study page: comparability of studies, jailbreak rates, shared comparisons and defense costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.svg import LinearScale, difference_strip, interval_strip, percent_axis, symmetric_limit
from undersong.pages.tables import NumberCell, Table, percent_cell
from undersong.report.arm_comparisons import HeadlineData, headline_data_by_modality, headline_data_by_model
from undersong.report.sections.arm_chart import RELATION_TO_BASE
from undersong.report.sections.comparisons import comparison_facts
from undersong.report.summary import Estimate
from undersong.research.report.defenses import undefended_arm_title
from undersong.results.schema import Results, model_names
from undersong.results.schema_base import ValueWithInterval
from undersong.results.schema_comparisons import ComparisonRecord
from undersong.results.schema_defenses import CostPart, DefenseRecord
from undersong.study.results.comparability import evaluation_facts, fact_differences, study_titles


@dataclass(frozen=True, slots=True)
class StudyComparison:
    """One study of a comparison.

    `differs` says why its rates must not be compared with those of the first study; it is empty if they may be.
    """

    name: str
    results: Results
    headlines: tuple[HeadlineData, ...]
    differs: tuple[str, ...]

    def headline(self, modality: str) -> HeadlineData | None:
        """Return the study's headline data for spoken (`audio`) or typed (`text`) prompts; None if not measured."""
        return next((headline for headline in self.headlines if headline.modality == modality), None)

    def headlines_by_model(self, modality: str) -> list[HeadlineData]:
        """Return the headline data of each model by itself, and never their mean; empty if not measured."""
        headline = self.headline(modality)
        return [] if headline is None else headline_data_by_model(self.results, modality) or [headline]

    def title_of(self, headline: HeadlineData) -> str:
        """Return the study's name; of several models, with the model."""
        return f"{self.name}: {headline.model}" if len(model_names(self.results)) > 1 else self.name


def compare_studies(studies: Sequence[tuple[str, Results]]) -> tuple[StudyComparison, ...]:
    """Compare studies with the first one; `studies` holds pairs of a unique title and the results."""
    names = study_titles(studies)
    facts = [_rate_facts(results) for _, results in studies]
    first_facts = facts[0]
    return tuple(
        StudyComparison(
            name,
            results,
            tuple(headline_data_by_modality(results)),
            tuple(fact_differences(names[0], first_facts, study_facts)),
        )
        for name, (_, results), study_facts in zip(names, studies, facts, strict=True)
    )


def _rate_facts(results: Results) -> dict[str, str]:
    """Return the facts that the study's headline rate depends on besides model and training."""
    headline = next(iter(headline_data_by_modality(results)), None)
    if headline is None:
        return evaluation_facts(results)
    verdict_filter = headline.verdict_filter
    return evaluation_facts(results, verdict_filter.prompt_set, verdict_filter.system, verdict_filter.rate_label)


@dataclass(frozen=True, slots=True)
class StudyRateRow:
    """Chart row of a base, arm or system prompt of one study; `against` compares it with the study's base."""

    label: str
    note: str
    estimate: Estimate
    against: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class StudyRateBlock:
    """One model of one study."""

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
    """Build the rates on spoken and then on typed prompts, if any study measured them."""
    modalities = [
        modality for modality in ("audio", "text") if any(study.headline(modality) is not None for study in studies)
    ]
    return tuple(_study_rates(studies, modality) for modality in modalities)


def _study_rates(studies: Sequence[StudyComparison], modality: str) -> StudyRates:
    study_lines = [
        (study, headline, list(_rate_lines(headline)))
        for study in studies
        for headline in study.headlines_by_model(modality)
    ]
    numbers = [number for *_, lines in study_lines for *_, number, _ in lines]
    top, tick_marks = percent_axis(max((max(number.mean, number.high or 0.0) for number in numbers), default=1.0))
    x = LinearScale((0.0, top), (0.0, 100.0))
    grid = [value for value, _ in tick_marks]
    blocks = []
    for study, headline, lines in study_lines:
        base = None if headline.base is None else headline.base.mean
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
        blocks.append(StudyRateBlock(study.name, headline.model, study.differs, rows))
    prompt_label, rate = (
        formatting.modality_label(modality),
        study_lines[0][1].verdict_filter.rate_label,
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
        state = headline.relation_to_base(item)
        name = (
            "Worst arm"
            if item is headline.worst and headline.n_arms > 1
            else f"{formatting.capitalize_first(item.arm.kind)} arm"
        )
        yield name, item.arm.label, item.arm.kind, False, item.estimate, RELATION_TO_BASE[state].removeprefix(", ")
    for item in headline.system_variants:
        yield f"System text “{item.system}”", item.arm.label, item.arm.kind, True, item.estimate, ""


def _rate_table(
    study_lines: Sequence[tuple[StudyComparison, HeadlineData, Sequence[RateLine]]], caption: str, rate: str
) -> Table:
    rows = tuple(
        (
            study.title_of(headline),
            label,
            note,
            _rate_cell(number),
            str(number.runs),
            f"{number.n:,}",
            relation_to_base or formatting.MISSING,
            "; ".join(study.differs) or formatting.MISSING,
        )
        for study, headline, lines in study_lines
        for label, note, _, _, number, relation_to_base in lines
    )
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


@dataclass(frozen=True, slots=True)
class DifferenceCell:
    """Difference in one study; empty if the study lacks the comparison."""

    difference: str
    interval: str
    tested: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class SharedComparison:
    """Comparison that several studies make, with one cell per study.

    `what` names set, modality, system prompt and metric.
    """

    question: str
    what: str
    cells: tuple[DifferenceCell, ...]


@dataclass(frozen=True, slots=True)
class SharedComparisons:
    """Comparisons that at least two studies make; `reach` is the end of the charts' axis on both sides, in points."""

    lines: tuple[SharedComparison, ...]
    alone: int  # questions that one study only asks
    reach: str


def build_shared_comparisons(studies: Sequence[StudyComparison]) -> SharedComparisons:
    """Set the comparisons of scope `recipe` side by side by their ids, which are equal where the question is.

    A claim about one run's weights has no counterpart in another study.
    """
    by_id: dict[str, dict[int, ComparisonRecord]] = {}
    for i, study in enumerate(studies):
        for comparison in study.results.comparisons:
            if comparison.scope == "recipe":
                by_id.setdefault(comparison.id, {})[i] = comparison.with_minuend("b")
    shared = [by_study for by_study in by_id.values() if len(by_study) > 1]
    limit = symmetric_limit(
        end
        for by_study in shared
        for comparison in by_study.values()
        for end in (comparison.difference, comparison.low, comparison.high)
    )
    rows = []
    for by_study in shared:
        first = next(iter(by_study.values()))
        cells = tuple(_difference_cell(by_study.get(i), limit) for i in range(len(studies)))
        rows.append(SharedComparison(first.question, " · ".join(comparison_facts(first)), cells))
    return SharedComparisons(tuple(rows), len(by_id) - len(shared), f"{100 * limit:g}")


def _difference_cell(comparison: ComparisonRecord | None, limit: float) -> DifferenceCell:
    """B - A, as the questions are put."""
    if comparison is None:
        return DifferenceCell(formatting.MISSING, "", "", Markup(""))
    p = (
        f", adjusted p {formatting.p_value_relation(comparison.p_adjusted)}"
        if comparison.p_adjusted is not None
        else ""
    )
    center, low, high = comparison.difference, comparison.low, comparison.high
    interval = formatting.bracket(low, high) or "no interval"
    picture = difference_strip(center, low, high, limit)
    return DifferenceCell(formatting.points(center), interval, f"n = {comparison.n}{p}", picture)


def build_defense_costs(studies: Sequence[StudyComparison]) -> Table | None:
    """Build the table with a row per study, arm and defense; None if no study measured a defense."""
    rows = tuple(_defense_cost_row(study, defense) for study in studies for defense in study.results.defense_tradeoffs)
    head = (
        *("Study", "Trained", "Defense", "runs", "rate where it is highest, % [95 %]", "rise of over-refusal, points"),
        *("loss of utility, points", "costs at most, %", "shown safe", "not comparable"),
    )
    return Table("Defenses of every study: safety against cost", head, rows, names=3) if rows else None


def _defense_cost_row(study: StudyComparison, defense: DefenseRecord) -> tuple[str | NumberCell, ...]:
    highest_rate = max(defense.jsr.values(), key=lambda interval: interval.value or 0.0, default=ValueWithInterval())
    safe = {True: "yes", False: "no", None: formatting.MISSING}[defense.safe]
    return (
        study.name,
        undefended_arm_title(defense),
        "no defense" if defense.defense == "none" else defense.defense,
        str(defense.n_runs),
        percent_cell(highest_rate.value, highest_rate.low, highest_rate.high),
        _loss_cell(defense, defense.over_refusal_rise),
        _loss_cell(defense, defense.utility_loss),
        percent_cell(defense.max_cost),
        safe,
        "yes" if study.differs else formatting.MISSING,
    )


def _loss_cell(defense: DefenseRecord, part: CostPart | None) -> NumberCell:
    """Return the loss compared with no defense, in points; empty for the undefended arm."""
    loss = None if part is None or defense.defense == "none" else part.loss
    return NumberCell(formatting.points(loss), None if loss is None else 100 * loss)
