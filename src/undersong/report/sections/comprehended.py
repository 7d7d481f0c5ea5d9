"""Were the harmful requests heard, and are the replies to them?  A row an arm and a set, at the last step."""

from __future__ import annotations

from undersong.report import words
from undersong.report.judged import Share
from undersong.report.panels import Table, Value, share
from undersong.report.schema import Results, Run, SetResult
from undersong.report.summary import Cell, arms, estimate, view

Measured = list[tuple[Run, SetResult]]


def build(results: Results) -> Table | None:
    """None where the study did not ask."""
    shown, short = view(results), {arm.name: arm.short for arm in arms(results)}
    groups: dict[tuple[str, ...], Measured] = {}
    for run in results.runs:
        for row in run.sets:
            if row.comprehension is not None:
                where = (short.get(run.arm, run.arm), run.model or "", row.set, words.spoken(row.modality), row.system)
                groups.setdefault(where, []).append((run, row))
    if not groups or shown is None:
        return None
    names = ("Arm", "Base", "Set", "asked", "system")
    rate = words.sentence(shown.rate)
    head = (*names, rate, "heard", "about the request (chance)", "comprehended", "of non-refusals")
    rows: list[tuple[str | Value, ...]] = [(*where, *_cells(mine)) for where, mine in groups.items()]
    return Table(
        f"{rate} beside what was heard and what replies are about, % [95 %]", head, tuple(rows), names=len(names)
    )


def _cells(mine: Measured) -> tuple[str | Value, ...]:
    known = [(run, row, row.comprehension) for run, row in mine if row.comprehension is not None]
    about = [(run, row, told.about) for run, row, told in known]
    return (
        _share([(run, row, Share(rate=row.rate, low=row.low, high=row.high)) for run, row in mine]),
        _share([(run, row, told.heard) for run, row, told in known]),
        _share(about, _chance([part for _, _, part in about])),
        _share([(run, row, told.comprehended) for run, row, told in known]),
        _share([(run, row, told.of_non_refusals) for run, row, told in known]),
    )


def _share(parts: list[tuple[Run, SetResult, Share | None]], more: str = "") -> Value:
    """The mean over the runs that have it."""
    cells = [
        Cell(run, row.model_copy(update={"low": part.low, "high": part.high}), part.rate)
        for run, row, part in parts
        if part is not None and part.rate is not None
    ]
    found = estimate(cells)
    return share(None) if found is None else share(found.mean, found.low, found.high, more)


def _chance(parts: list[Share | None]) -> str:
    known = [part.chance for part in parts if part is not None and part.chance is not None]
    return f"({words.bare(sum(known) / len(known))})" if known else ""
