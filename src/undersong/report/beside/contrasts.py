"""The same questions, asked by several studies: each study's difference with its interval, n and corrected p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import formatting
from undersong.report.beside.comparable import StudyComparison
from undersong.report.svg import difference_strip, symmetric_limit
from undersong.results.schema import ComparisonRecord


@dataclass(frozen=True, slots=True)
class DifferenceCell:
    """Empty where a study does not ask it."""

    difference: str
    interval: str
    tested: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class SharedComparison:
    """A question that several studies ask; `what`: set, modality, system text and metric; a cell a study, in order."""

    question: str
    what: str
    cells: tuple[DifferenceCell, ...]


@dataclass(frozen=True, slots=True)
class SharedComparisons:
    """The questions of two studies or more.  `reach`: how far the pictures' axis goes to both sides, in points."""

    lines: tuple[SharedComparison, ...]
    alone: int  # questions that one study only asks
    reach: str


ComparisonKey = tuple[str, str | None, str | None, str | None, str]


def build_shared_comparisons(studies: Sequence[StudyComparison]) -> SharedComparisons:
    """Of scope `recipe`: a claim about one run's weights has no counterpart in another study."""
    by_question: dict[ComparisonKey, dict[int, ComparisonRecord]] = {}
    for i, study in enumerate(studies):
        for comparison in study.results.comparisons:
            if comparison.scope == "recipe":
                key = (comparison.question, comparison.set, comparison.modality, comparison.system, comparison.metric)
                by_question.setdefault(key, {})[i] = comparison
    shared_questions = {key: by_study for key, by_study in by_question.items() if len(by_study) > 1}
    limit = symmetric_limit(
        end
        for by_study in shared_questions.values()
        for comparison in by_study.values()
        for end in (comparison.difference, comparison.low, comparison.high)
    )
    rows = tuple(
        SharedComparison(
            key[0], _comparison_facts(key), tuple(_difference_cell(by_study.get(i), limit) for i in range(len(studies)))
        )
        for key, by_study in shared_questions.items()
    )
    return SharedComparisons(rows, len(by_question) - len(shared_questions), f"{100 * limit:g}")


def _comparison_facts(key: ComparisonKey) -> str:
    _, name, modality, system, metric = key
    parts = [
        name or "",
        formatting.modality_label(modality) if modality else "",
        f"“{system}” prompt" if system else "",
    ]
    return " · ".join(filter(None, (*parts, metric.replace("_", " ").replace("jsr", "JSR"))))


def _difference_cell(comparison: ComparisonRecord | None, limit: float) -> DifferenceCell:
    if comparison is None:
        return DifferenceCell(formatting.MISSING, "", "", Markup(""))
    sign = 1.0 if comparison.minuend == "b" else -1.0  # always B - A, as the questions are put
    ends = sorted(sign * end for end in (comparison.low, comparison.high) if end is not None)
    low, high = ends if len(ends) == 2 else (None, None)
    center = None if comparison.difference is None else sign * comparison.difference
    p = (
        f", corrected p {formatting.p_value_relation(comparison.p_adjusted)}"
        if comparison.p_adjusted is not None
        else ""
    )
    n = f"n = {comparison.n}" if comparison.n is not None else "n unknown"
    interval = formatting.bracket(low, high) or "no interval"
    return DifferenceCell(formatting.points(center), interval, f"{n}{p}", difference_strip(center, low, high, limit))
