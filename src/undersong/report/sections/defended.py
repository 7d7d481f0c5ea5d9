"""Both defenses, each charged: JSR, over-refusal and utility in one row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import words
from undersong.report.panels import trained
from undersong.report.schema import Defense, Interval, Results
from undersong.report.svg import tag

ORDER = ("none", "distant data", "system prompt")


@dataclass(frozen=True, slots=True)
class Cell:
    rate: str
    interval: str
    change: str  # points against the row without a defense; empty in that row
    bar: Markup


@dataclass(frozen=True, slots=True)
class Line:
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
    heads: tuple[tuple[str, tuple[str, ...]], ...]  # (what, its columns by modality of the prompts)
    blocks: tuple[Block, ...]
    findings: tuple[str, ...]  # what each defense brought and cost, one sentence each


@dataclass(frozen=True, slots=True)
class Column:
    group: str  # JSR | over-refusal | utility
    set: str  # "" for JSR
    modality: str

    def of(self, row: Defense) -> Interval | None:
        if self.group == "jsr":
            return row.jsr.get(self.modality)
        table = row.over_refusal if self.group == "over_refusal" else row.utility
        return table.get(self.set, {}).get(self.modality)


def build(results: Results) -> Defended | None:
    columns = _columns(results.defenses)
    if not results.defenses or not columns:
        return None
    heads: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        heads.setdefault((column.group, column.set), []).append(words.spoken(column.modality))
    groups = _groups(results.defenses)
    return Defended(
        heads=tuple((_head(*key), tuple(modes)) for key, modes in heads.items()),
        blocks=tuple(Block(title, tuple(_lines(rows, columns))) for title, rows in groups),
        findings=tuple(said for title, rows in groups for said in _findings(title, rows, columns)),
    )


def _groups(every: Sequence[Defense]) -> list[tuple[str, list[Defense]]]:
    """What may be compared: one axis and training modality, with one row without a defense."""
    groups: dict[tuple[str | None, str | None, int], list[Defense]] = {}
    undefended: Counter[tuple[str | None, str | None]] = Counter()
    for row in every:
        place = row.axis, row.train_modality
        undefended[place] += row.defense == "none"
        groups.setdefault((*place, max(undefended[place], 1)), []).append(row)
    many = len({axis for axis, _, _ in groups}) > 1
    return [
        (trained(modality) + (f", {axis} axis" if many and axis else ""), rows)
        for (axis, modality, _), rows in groups.items()
    ]


def _columns(rows: Sequence[Defense]) -> list[Column]:
    """Those in which something was measured, in the order JSR, over-refusal, utility; audio before text."""
    sets = list(dict.fromkeys(name for row in rows for name in (*row.over_refusal, *row.utility)))
    wanted = [Column("jsr", "", modality) for modality in ("audio", "text")]
    wanted += [Column(group, s, m) for group in ("over_refusal", "utility") for s in sets for m in ("audio", "text")]
    return [column for column in wanted if any(_mean(column.of(row)) is not None for row in rows)]


def _head(group: str, set: str) -> str:
    return {"jsr": "JSR", "over_refusal": f"Over-refusal, {set}", "utility": f"Utility, {set}"}[group]


def _lines(rows: Sequence[Defense], columns: Sequence[Column]) -> list[Line]:
    ordered = sorted(rows, key=lambda row: ORDER.index(row.defense) if row.defense in ORDER else len(ORDER))
    without = next((row for row in ordered if row.defense == "none"), None)
    return [
        Line(
            name="No defense" if row.defense == "none" else words.sentence(row.defense),
            detail=_detail(row),
            note=row.note or "",
            cells=tuple(_cell(column, row, without) for column in columns),
        )
        for row in ordered
    ]


def _detail(row: Defense) -> str:
    parts = [f"{row.kind} data" if row.kind else "", f"“{row.system}” prompt" if row.system else ""]
    parts += [f"step {row.step}" if row.step is not None else "", words.count(row.runs, "run") if row.runs else ""]
    return " · ".join(filter(None, parts))


def _mean(interval: Interval | None) -> float | None:
    return interval.mean if interval is not None else None


def _cell(column: Column, row: Defense, without: Defense | None) -> Cell:
    here, there = column.of(row), column.of(without) if without is not None else None
    share, before = _mean(here), _mean(there)
    change = ""
    if share is not None and before is not None and row is not without:
        change = words.points(share - before)
    interval = words.bracket(here.low, here.high) if here is not None and share is not None else ""
    return Cell(words.bare(share), interval or words.NONE, change, _bar(share, column.group))


def _bar(share: float | None, group: str) -> Markup:
    if share is None:
        return Markup("")
    filled = tag("rect", width=f"{100 * share:.1f}%", height=3, class_=f"bar b-{group.replace('_', '-')}")
    ground = tag("rect", width="100%", height=3, class_="bar ground")
    return tag("svg", ground, filled, class_="databar", aria_hidden="true", width="100%", height=3)


def _findings(title: str, rows: Sequence[Defense], columns: Sequence[Column]) -> list[str]:
    without = next((row for row in rows if row.defense == "none"), None)
    if without is None:
        return []
    jsr = next((column for column in columns if column.group == "jsr"), None)
    defended = [row for row in rows if row is not without]
    found = [(row, _brought(jsr, row, without) if jsr else "", _cost(columns, row, without)) for row in defended]
    return [
        f"{words.sentence(row.defense)}, {title[:1].lower()}{title[1:]}: {'; '.join(filter(None, (brought, cost)))}."
        for row, brought, cost in found
        if brought or cost
    ]


def _brought(column: Column, row: Defense, without: Defense) -> str:
    """'JSR on spoken prompts 80.9 % without, 3.1 % with it', and whether the intervals overlap."""
    here, there = column.of(row), column.of(without)
    if here is None or there is None or here.mean is None or there.mean is None:
        return ""
    before, after = words.percent(there.mean), words.percent(here.mean)
    text = f"JSR on {words.spoken(column.modality)} prompts {before} without, {after} with it"
    ends = (here.low, here.high, there.low, there.high)
    if any(end is None for end in ends):
        return text
    apart = (here.high or 0.0) < (there.low or 0.0) or (here.low or 0.0) > (there.high or 0.0)
    return text if apart else f"{text} (the intervals overlap: not distinguishable)"


def _cost(columns: Sequence[Column], row: Defense, without: Defense) -> str:
    """The largest rise of over-refusal and the largest loss of utility among all columns."""
    said = []
    for group, name, sign in (("over_refusal", "over-refusal", 1), ("utility", "utility", -1)):
        changes = [
            (here - there, column)
            for column in columns
            if column.group == group
            and (here := _mean(column.of(row))) is not None
            and (there := _mean(column.of(without))) is not None
        ]
        if changes:
            change, column = max(changes, key=lambda item: sign * item[0])
            where = f"{column.set}, {words.spoken(column.modality)}"
            said.append(f"{name} {words.points(change)} points where it costs most ({where})")
    return "; ".join(said)
