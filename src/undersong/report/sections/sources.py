"""Where the spread of runs comes from: base, selection, draw, seed, prompts."""

from __future__ import annotations

from undersong.report import words
from undersong.report.panels import Table, trained
from undersong.report.schema import Results
from undersong.report.variation import Component, Variance

HEAD = ("Asked, trained", "source", "why no number, or 0", "values", "SD, points", "share of what is known")
STANDING = (
    "Bases, selections, draws and seeds are as many as this study has. Run noise grows with the rate: a study whose "
    "arms hardly break promises more power than one whose arms do has."
)


def build(results: Results) -> Table | None:
    """None where no source has a number, as in a study of one run an arm."""
    if not any(part.sd is not None for one in results.variance for part in one.parts):
        return None
    rows = tuple(_row(one, part) for one in results.variance for part in one.parts)
    return Table("Where the spread of rates comes from, runs and prompts of this study", HEAD, rows, 3)


def notes(results: Results) -> list[str]:
    """How the table is read, and what else was found."""
    found = [STANDING]
    for one in results.variance:
        if one.seed_by_prompts is not None:
            found.append(
                f"{_where(one)}: {words.bare(one.seed_by_prompts)} points of the seed’s SD are there because "
                f"{words.count(one.n, 'prompt')} are few; what else there is only more seeds average out."
            )
        if one.note:
            found.append(f"{_where(one)}: {one.note}")
    return found


def _row(one: Variance, part: Component) -> tuple[str, ...]:
    spread = words.NONE
    if part.sd is not None:
        spread = " ".join(filter(None, (words.bare(part.sd), words.bracket(part.low, part.high))))
    values = str(part.groups) if part.groups else words.NONE
    return _where(one), part.name, part.note or "", values, spread, words.percent(part.share)


def _where(one: Variance) -> str:
    asked = " · ".join(filter(None, (one.set, words.spoken(one.modality) if one.modality else "")))
    return f"{asked}, {trained(one.train_modality).lower()}"
