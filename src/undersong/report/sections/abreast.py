"""Several models side by side: what each axis and the training modality do on average, within each base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import words
from undersong.report.schema import Marginal, Results
from undersong.report.svg import difference, symmetric


@dataclass(frozen=True, slots=True)
class Cell:
    """One model's difference; empty where the study has no such contrast for it."""

    difference: str
    interval: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class Line:
    """One contrast of every base; cells in the order of `Abreast.models`; `detail`: how many arms a side, or empty."""

    contrast: str
    detail: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """The contrasts of one prompt set and modality."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Abreast:
    """Contrasts within each base, side by side: a column a base, so a model may stand twice."""

    models: tuple[str, ...]
    blocks: tuple[Block, ...]
    reach: str  # how far the pictures' axis goes to both sides, in points
    runs: int  # pairs of runs behind a cell, at most


def build(results: Results) -> Abreast | None:
    """None where there are not several models to set side by side."""
    bases = list(dict.fromkeys((m.model, m.base_seed) for m in results.marginals))
    if len(bases) < 2:
        return None
    reach = symmetric(end for m in results.marginals for end in (m.difference, m.low, m.high))
    places = dict.fromkeys((m.set, m.modality) for m in results.marginals)
    blocks = []
    for name, modality in places:
        here = [m for m in results.marginals if (m.set, m.modality) == (name, modality)]
        questions = dict.fromkeys(m.question for m in here)
        lines = tuple(_line(q, [m for m in here if m.question == q], bases, reach) for q in questions)
        blocks.append(Block(f"{words.spoken(modality)} prompts, set {name}", lines))
    most = max((m.n or 0 for m in results.marginals), default=0)
    return Abreast(tuple(str(model) for model, _ in bases), tuple(blocks), f"{100 * reach:g}", most)


def _line(
    question: str, here: Sequence[Marginal], bases: Sequence[tuple[str | None, int | None]], reach: float
) -> Line:
    found = {(m.model, m.base_seed): m for m in here}
    arms = max((m.arms or 0 for m in here), default=0)
    detail = f"mean of {words.count(arms, 'arm')} a side" if arms > 1 else ""
    return Line(question, detail, tuple(_cell(found.get(base), reach) for base in bases))


def _cell(marginal: Marginal | None, reach: float) -> Cell:
    if marginal is None:
        return Cell(words.NONE, "", Markup(""))
    picture = difference(marginal.difference, marginal.low, marginal.high, reach)
    alone = "one pair of runs" if marginal.n == 1 else "all pairs agree"  # why there is no interval
    return Cell(words.points(marginal.difference), words.bracket(marginal.low, marginal.high) or alone, picture)
