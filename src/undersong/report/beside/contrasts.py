"""The same questions, asked by several studies: each study's difference with its interval, n and corrected p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import words
from undersong.report.beside.comparable import Beside
from undersong.report.schema import Comparison
from undersong.report.svg import difference, symmetric


@dataclass(frozen=True, slots=True)
class Cell:
    """Empty where a study does not ask it."""

    difference: str
    interval: str
    tested: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class Line:
    """A question that several studies ask; `what`: set, modality, system text and metric; a cell a study, in order."""

    question: str
    what: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """The questions of two studies or more.  `reach`: how far the pictures' axis goes to both sides, in points."""

    lines: tuple[Line, ...]
    alone: int  # questions that one study only asks
    reach: str


Key = tuple[str, str | None, str | None, str | None, str]


def build(studies: Sequence[Beside]) -> Shared:
    """Of scope `recipe`: a claim about one run's weights has no counterpart in another study."""
    asked: dict[Key, dict[int, Comparison]] = {}
    for i, study in enumerate(studies):
        for one in study.found.comparisons:
            if one.scope == "recipe":
                key = (one.question, one.set, one.modality, one.system, one.metric)
                asked.setdefault(key, {})[i] = one
    shared = {key: of for key, of in asked.items() if len(of) > 1}
    reach = symmetric(end for of in shared.values() for c in of.values() for end in (c.difference, c.low, c.high))
    lines = tuple(
        Line(key[0], _what(key), tuple(_cell(of.get(i), reach) for i in range(len(studies))))
        for key, of in shared.items()
    )
    return Shared(lines, len(asked) - len(shared), f"{100 * reach:g}")


def _what(key: Key) -> str:
    _, name, modality, system, metric = key
    parts = [name or "", words.spoken(modality) if modality else "", f"“{system}” prompt" if system else ""]
    return " · ".join(filter(None, (*parts, metric.replace("_", " ").replace("jsr", "JSR"))))


def _cell(one: Comparison | None, reach: float) -> Cell:
    if one is None:
        return Cell(words.NONE, "", "", Markup(""))
    sign = 1.0 if one.minuend == "b" else -1.0  # always B - A, as the questions are put
    ends = sorted(sign * end for end in (one.low, one.high) if end is not None)
    low, high = ends if len(ends) == 2 else (None, None)
    middle = None if one.difference is None else sign * one.difference
    p = f", corrected p {words.equal(one.p_adjusted)}" if one.p_adjusted is not None else ""
    n = f"n = {one.n}" if one.n is not None else "n unknown"
    interval = words.bracket(low, high) or "no interval"
    return Cell(words.points(middle), interval, f"{n}{p}", difference(middle, low, high, reach))
