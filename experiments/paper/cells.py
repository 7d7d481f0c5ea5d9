"""The published figures with ours beside them, cell by cell.  Knows which of our runs stand for which printed cell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from experiments.paper.agreement import NOTHING, Estimate
from experiments.paper.claims import BBH, DISTANT, MODAL, ORGANISMS, PINK, SDQA, SYSTEM
from experiments.paper.evidence import Contrast, Evidence, Side, Where
from undersong.research.verify import PublishedRate, published_rates

PRETRAINED = Where("pretrained")
FIRST = Side(PRETRAINED, "base")
TABLES = {
    "pretrained": "Table 1: before any tuning",
    "sdqa": "Table 2: closest and random data",
    "datasets": "Table 3: other data sets",
    "bbh": "Table 4: usefulness",
    "noise": "Table 5: noise over the training speech",
    "distant": "Table 6: distant data",
    "system": "Table 7: a system prompt",
    "cross_modal": "Figure on modalities: tuned on speech or on its text, asked by speech",
}
OURS_ALONE = ("mixed", "internal")  # axes of the paper's final text that its printed tables do not have


@dataclass(frozen=True)
class Cell:
    """One row: the printed figures by set, none where nothing is printed, and ours; None: there are no such runs."""

    family: str
    condition: str
    fraction: int | None
    printed: tuple[PublishedRate, ...]
    ours: Estimate | None


def cells(evidence: Evidence, study: str) -> list[Cell]:
    """The rows of a published table, in its order; after them what only we have."""
    rows: dict[tuple[str, str, int | None], list[PublishedRate]] = {}
    for figure in published_rates():
        if figure.study == study and not figure.set_name.startswith("BBH "):  # a task of BBH alone
            rows.setdefault((figure.family, figure.condition, figure.fraction), []).append(figure)
    out = [Cell(*row, tuple(mine), _ours(evidence, study, *row)) for row, mine in rows.items()]
    for row in _more(study, list(rows)):
        out.append(Cell(*row, (), _ours(evidence, study, *row)))
    return [one for one in out if one.printed or one.ours is not None]


def _more(study: str, known: list[tuple[str, str, int | None]]) -> Iterator[tuple[str, str, int | None]]:
    kind = {"sdqa": "closest", "distant": "distant"}.get(study)
    for family in dict.fromkeys(family for family, _, _ in known) if kind else ():
        for axis in OURS_ALONE:
            for fraction in (25, 50, 75):
                yield family, f"{axis} {kind}", fraction


def _ours(evidence: Evidence, study: str, family: str, condition: str, fraction: int | None) -> Estimate | None:
    organism = next(name for name, stands_for in ORGANISMS.items() if stands_for == family)
    side = side_of(study, condition, fraction)
    return None if side is None else Contrast(None, side).estimate(evidence, organism, NOTHING)


def side_of(study: str, condition: str, fraction: int | None) -> Side | None:
    """The runs that stand for a printed cell; None: nothing here does."""
    share = (fraction or 25) / 100
    axes = tuple(re.findall("semantic|acoustic|mixed|internal", condition))
    if study == "datasets":
        return None
    if study == "bbh":
        tuned = condition == "finetuned"
        return Side(BBH, "closest" if tuned else "base", axes=("semantic",), sets=("far",), counted="right")
    if "pretrained" in condition:
        return FIRST
    if study == "noise":
        return Side(PINK, "closest", fraction=share)
    if study == "cross_modal":
        trained = condition.partition(":")[0]
        return Side(MODAL, "closest", ("semantic",) if trained == "text" else ("acoustic",), trained, fraction=share)
    if study == "system":
        system = "plain" if "without" in condition else "safe"
        return Side(SYSTEM, "closest", axes, system=system, fraction=share)
    where = {"sdqa": SDQA, "distant": DISTANT}[study]
    return Side(where, condition.rpartition(" ")[2], axes, fraction=share)
