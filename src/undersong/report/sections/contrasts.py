"""Every comparison the study made, with scope, interval and corrected p."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from undersong.report import words
from undersong.report.schema import Comparison, Results
from undersong.report.svg import difference, symmetric


@dataclass(frozen=True, slots=True)
class Line:
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
class Contrasts:
    """All comparisons, in the order of the results; `tested`: those with a corrected p."""

    lines: tuple[Line, ...]
    reach: str  # how far the pictures' axis goes to both sides, in points
    passed: int  # comparisons whose corrected p is below 0.05
    tested: int


def build(results: Results) -> Contrasts | None:
    """None where nothing was compared."""
    if not results.comparisons:
        return None
    reach = symmetric(end for c in results.comparisons for end in (c.difference, c.low, c.high))
    adjusted = [c.p_adjusted for c in results.comparisons if c.p_adjusted is not None]
    return Contrasts(
        lines=tuple(_line(comparison, reach) for comparison in results.comparisons),
        reach=f"{100 * reach:g}",
        passed=sum(1 for p in adjusted if p < 0.05),
        tested=len(adjusted),
    )


def _line(c: Comparison, reach: float) -> Line:
    what = [c.set or "", words.spoken(c.modality) if c.modality else "", f"“{c.system}” prompt" if c.system else ""]
    what += [f"step {c.step}" if c.step is not None else "", c.metric.replace("_", " ").replace("jsr", "JSR")]
    return Line(
        question=c.question or c.id or "",
        scope=c.scope,
        what=" · ".join(filter(None, what)),
        a=_label(c.a, "A"),
        b=_label(c.b, "B"),
        a_rate=_rate([pair.a for pair in c.estimates]),
        b_rate=_rate([pair.b for pair in c.estimates]),
        n=str(c.n) if c.n is not None else words.NONE,
        difference=words.points(c.difference),
        minus="B − A" if c.minuend == "b" else "A − B",
        interval=words.bracket(c.low, c.high) or words.NONE,
        picture=difference(c.difference, c.low, c.high, reach),
        p=words.probability(c.p),
        p_adjusted=words.probability(c.p_adjusted),
        method=c.method or "",
        note=c.note or "",
    )


def _label(side: Mapping[str, Any], otherwise: str) -> str:
    return str(side.get("label") or side.get("arm") or side.get("kind") or otherwise)


def _rate(values: list[float | None]) -> str:
    measured = [value for value in values if value is not None]
    return words.percent(sum(measured) / len(measured)) if measured else ""
