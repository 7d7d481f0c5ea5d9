"""Every defense, each charged: JSR, over-refusal and utility in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from undersong.report import words
from undersong.report.columns import Column, columns_of, head_of, mean_of
from undersong.report.panels import Group, Table, trained
from undersong.report.priced import Defense, Recommended
from undersong.report.schema import Results
from undersong.report.sections import brought, pareto
from undersong.report.svg import tag
from undersong.study.judges import RATES

BARS = {
    "jsr_by_set": "jsr",
    "again": "jsr",
    "over_refusal": "over-refusal",
    "kept": "utility",
}  # classes of the style sheet
ORDER = ("none", "distant data", "system prompt")


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of the table and what stands under it: a share in per cent, drawn as a bar, or CPU seconds."""

    rate: str
    interval: str
    change: str  # points against the row without a defense; empty in that row
    bar: Markup


@dataclass(frozen=True, slots=True)
class Line:
    """One defense: `detail`: what it changes, and how it was measured; `note`: what was chosen in its runs."""

    name: str
    detail: str
    note: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """The rows of one training modality."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Defended:
    """The table of defenses: a block an undefended arm, the cells of a line under `heads` in order."""

    heads: tuple[tuple[str, tuple[str, ...]], ...]  # (what, its columns by modality of the prompts)
    blocks: tuple[Block, ...]
    findings: tuple[str, ...]  # what each defense brought and cost, one sentence each
    recommended: tuple[str, ...]
    groups: tuple[Group, ...]  # the same as a picture, where there are several
    numbers: Table  # behind the pictures
    seconds: bool  # whether it is known what each took to make
    limited: bool  # whether anything says what is safe
    rate: str  # JSR, or non-refusal rate where the judge sees refusal only


def build(results: Results) -> Defended | None:
    """None where no defense was measured."""
    columns = columns_of(results.defenses)
    if not results.defenses or not columns:
        return None
    rate = RATES.get(results.defenses[0].metric, results.defenses[0].metric)
    heads: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        heads.setdefault((column.group, column.set), []).append(
            words.spoken(column.modality) if column.modality else ""
        )
    groups = _groups(results.defenses)
    taken = results.provenance.get("cpu_seconds_by_defense") or {}
    prices = ("at most", *(("CPU s to make", "CPU s to ask") if taken else ()))
    return Defended(
        heads=(
            *((words.sentence(head_of(*key, rate)), tuple(modes)) for key, modes in heads.items()),
            ("Price", prices),
        ),
        blocks=tuple(Block(title, tuple(_lines(rows, columns, taken))) for title, rows in groups),
        findings=tuple(said for title, rows in groups for said in brought.findings(title, rows, columns, rate)),
        recommended=tuple(_recommended(results)),
        groups=tuple(pareto.groups(groups, rate)),
        numbers=pareto.table(groups, rate),
        seconds=bool(taken),
        limited=any(row.safe is not None for row in results.defenses),
        rate=rate,
    )


def _recommended(results: Results) -> list[str]:
    many = len(results.recommended) > 1
    return [
        f"{f'{arm_of(one, results)}: ' if many else ''}Recommended: {one.defense or 'none'}. {one.reason}"
        for one in results.recommended
    ]


def arm_of(one: Recommended, results: Results) -> str:
    """The undefended arm that a recommendation is about, by what differs among them."""
    places = {(other.family, other.axis, other.fraction) for other in results.recommended}
    return _title(one, len(places) > 1)


def arm_title(one: Defense) -> str:
    """The undefended arm of a row, in full."""
    return _title(one, True)


def _title(one: Defense | Recommended, many: bool) -> str:
    more = (one.family, f"{one.axis} axis" if one.axis else None, f"{one.fraction:g}" if one.fraction else None)
    return ", ".join((trained(one.train_modality), *(part for part in more if many and part)))


def _groups(every: Sequence[Defense]) -> list[tuple[str, list[Defense]]]:
    """What may be compared: the rows of one undefended arm."""
    groups: dict[tuple[object, ...], list[Defense]] = {}
    for row in every:
        groups.setdefault((row.family, row.axis, row.fraction, row.train_modality), []).append(row)
    many = len({key[:3] for key in groups}) > 1
    return [(_title(rows[0], many), _ordered(rows)) for rows in groups.values()]


def _ordered(rows: Sequence[Defense]) -> list[Defense]:
    return sorted(rows, key=lambda row: ORDER.index(row.defense) if row.defense in ORDER else len(ORDER))


def _lines(rows: Sequence[Defense], columns: Sequence[Column], taken: Mapping[str, Any]) -> list[Line]:
    without = next((row for row in rows if row.defense == "none"), None)
    return [
        Line(
            name="No defense" if row.defense == "none" else words.sentence(row.defense),
            detail=_detail(row),
            note=row.note or "",
            cells=(*(_cell(column, row, without) for column in columns), *_price(row, taken)),
        )
        for row in rows
    ]


def _price(row: Defense, taken: Mapping[str, Any]) -> list[Cell]:
    """What it costs where it costs most, and the CPU seconds of a run, means over the runs of all undefended arms."""
    cells = [Cell(words.bare(row.cost), words.NONE, "", Markup(""))]
    for part in ("make", "ask") if taken else ():
        seconds = (taken.get(row.defense) or {}).get(part) or {}
        middle, *ends = (words.decimal(seconds.get(name), 1) for name in ("mean", "low", "high"))
        interval = words.NONE if words.NONE in ends else f"[{ends[0]},{words.NBSP}{ends[1]}]"
        cells.append(Cell(middle, interval, "", Markup("")))
    return cells


def _detail(row: Defense) -> str:
    parts = [f"{row.kind} data" if row.kind else "", f"“{row.system}” prompt" if row.system else ""]
    parts = [" and ".join(row.changes)] if row.changes else parts
    parts += ["shown safe" if row.safe else ""]
    parts += [f"step {row.step}" if row.step is not None else "", words.count(row.runs, "run") if row.runs else ""]
    return " · ".join(filter(None, parts))


def _cell(column: Column, row: Defense, without: Defense | None) -> Cell:
    here, there = column.of(row), column.of(without) if without is not None else None
    share, before = mean_of(here), mean_of(there)
    change = ""
    if share is not None and before is not None and row is not without:
        change = words.points(share - before)
    interval = words.bracket(here.low, here.high) if here is not None and share is not None else ""
    return Cell(words.bare(share), interval or words.NONE, change, _bar(share, column.group))


def _bar(share: float | None, group: str) -> Markup:
    if share is None:
        return Markup("")
    filled = tag("rect", width=f"{100 * share:.1f}%", height=3, class_=f"bar b-{BARS.get(group, group)}")
    ground = tag("rect", width="100%", height=3, class_="bar ground")
    return tag("svg", ground, filled, class_="databar", aria_hidden="true", width="100%", height=3)
