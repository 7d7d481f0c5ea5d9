"""Every comparison the study made, with scope, interval and corrected p."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from undersong.report import formatting
from undersong.report.svg import difference_strip, symmetric_limit
from undersong.results.schema import ComparisonRecord, Results


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One comparison as text: rates in per cent (means over its pairs of runs), difference and interval in points."""

    question: str
    scope: str
    what: str
    a: str
    b: str
    a_rate: str
    b_rate: str
    n: str
    difference: str
    minus: str  # 'B − A' or 'A − B'
    interval: str
    picture: Markup
    p: str
    p_adjusted: str
    method: str
    note: str


@dataclass(frozen=True, slots=True)
class ComparisonTable:
    """All comparisons, in the order of the results; `tested`: those with a corrected p."""

    lines: tuple[ComparisonRow, ...]
    reach: str  # how far the pictures' axis goes to both sides, in points
    passed: int  # comparisons whose corrected p is below 0.05
    tested: int


def build_comparison_table(results: Results) -> ComparisonTable | None:
    """None where nothing was compared."""
    if not results.comparisons:
        return None
    limit = symmetric_limit(
        end for comparison in results.comparisons for end in (comparison.difference, comparison.low, comparison.high)
    )
    adjusted = [comparison.p_adjusted for comparison in results.comparisons if comparison.p_adjusted is not None]
    return ComparisonTable(
        lines=tuple(_comparison_row(comparison, limit) for comparison in results.comparisons),
        reach=f"{100 * limit:g}",
        passed=sum(1 for p in adjusted if p < 0.05),
        tested=len(adjusted),
    )


def _comparison_row(comparison: ComparisonRecord, limit: float) -> ComparisonRow:
    details = [
        comparison.set or "",
        formatting.modality_label(comparison.modality) if comparison.modality else "",
        f"“{comparison.system}” prompt" if comparison.system else "",
    ]
    details += [
        f"step {comparison.step}" if comparison.step is not None else "",
        comparison.metric.replace("_", " ").replace("jsr", "JSR"),
    ]
    return ComparisonRow(
        question=comparison.question or comparison.id or "",
        scope=comparison.scope,
        what=" · ".join(filter(None, details)),
        a=_side_label(comparison.a, "A"),
        b=_side_label(comparison.b, "B"),
        a_rate=_mean_rate([pair.a for pair in comparison.estimates]),
        b_rate=_mean_rate([pair.b for pair in comparison.estimates]),
        n=str(comparison.n) if comparison.n is not None else formatting.MISSING,
        difference=formatting.points(comparison.difference),
        minus="B − A" if comparison.minuend == "b" else "A − B",
        interval=formatting.bracket(comparison.low, comparison.high) or formatting.MISSING,
        picture=difference_strip(comparison.difference, comparison.low, comparison.high, limit),
        p=formatting.p_value(comparison.p),
        p_adjusted=formatting.p_value(comparison.p_adjusted),
        method=comparison.method or "",
        note=comparison.note or "",
    )


def _side_label(side: Mapping[str, Any], default: str) -> str:
    return str(side.get("label") or side.get("arm") or side.get("kind") or default)


def _mean_rate(values: list[float | None]) -> str:
    measured = [value for value in values if value is not None]
    return formatting.percent(sum(measured) / len(measured)) if measured else ""
