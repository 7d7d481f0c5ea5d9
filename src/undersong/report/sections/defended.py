"""Both defenses, each charged: JSR, over-refusal and utility in one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import words
from undersong.report.panels import Group, trained
from undersong.report.priced import Change, Defense, Interval, Recommended
from undersong.report.schema import Results
from undersong.report.sections import pareto
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
    recommended: tuple[str, ...]
    groups: tuple[Group, ...]  # the same as a picture, where there are several
    limited: bool  # whether anything says what is safe
    rate: str  # JSR, or non-refusal rate where the judge sees refusal only


@dataclass(frozen=True, slots=True)
class Column:
    group: str  # JSR | JSR of a set | again | over-refusal | utility | kept
    set: str  # "" for JSR and kept
    modality: str

    def of(self, row: Defense) -> Interval | None:
        if self.group == "kept":
            return row.kept
        if self.group in ("jsr", "again"):
            return (row.jsr if self.group == "jsr" else row.again).get(self.modality)
        table = {"jsr_by_set": row.jsr_by_set, "over_refusal": row.over_refusal}.get(self.group, row.utility)
        return table.get(self.set, {}).get(self.modality)


def build(results: Results) -> Defended | None:
    columns = _columns(results.defenses)
    if not results.defenses or not columns:
        return None
    rate = RATES.get(results.defenses[0].metric, results.defenses[0].metric)
    heads: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        heads.setdefault((column.group, column.set), []).append(
            words.spoken(column.modality) if column.modality else ""
        )
    groups = _groups(results.defenses)
    return Defended(
        heads=tuple((words.sentence(_head(*key, rate)), tuple(modes)) for key, modes in heads.items()),
        blocks=tuple(Block(title, tuple(_lines(rows, columns))) for title, rows in groups),
        findings=tuple(said for title, rows in groups for said in _findings(title, rows, columns, rate)),
        recommended=tuple(_recommended(results)),
        groups=tuple(pareto.groups(groups, rate)),
        limited=any(row.safe is not None for row in results.defenses),
        rate=rate,
    )


def _recommended(results: Results) -> list[str]:
    many = len(results.recommended) > 1
    return [
        f"{f'{_title(one, True)}: ' if many else ''}Recommended: {one.defense or 'none'}. {one.reason}"
        for one in results.recommended
    ]


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


def _columns(rows: Sequence[Defense]) -> list[Column]:
    """Those with something measured: JSR, still learned, over-refusal, utility; audio before text."""
    sets = list(dict.fromkeys(name for row in rows for name in (*row.over_refusal, *row.utility)))
    wanted = [Column("jsr", "", modality) for modality in ("audio", "text")]
    harmful = list(dict.fromkeys(name for row in rows for name in row.jsr_by_set))
    first_is_the_jsr = harmful[1:]
    wanted += [Column("jsr_by_set", name, modality) for name in first_is_the_jsr for modality in ("audio", "text")]
    wanted += [Column("again", "", modality) for modality in ("audio", "text")]
    wanted.append(Column("kept", "", ""))
    wanted += [Column(group, s, m) for group in ("over_refusal", "utility") for s in sets for m in ("audio", "text")]
    return [column for column in wanted if any(_mean(column.of(row)) is not None for row in rows)]


def _head(group: str, set: str, rate: str) -> str:
    return {
        "jsr": rate,
        "kept": "Still learned",
        "again": f"{rate}, tuned again",
        "jsr_by_set": f"{rate}, {set}",
        "over_refusal": f"Over-refusal, {set}",
        "utility": f"Utility, {set}",
    }[group]


def _lines(rows: Sequence[Defense], columns: Sequence[Column]) -> list[Line]:
    without = next((row for row in rows if row.defense == "none"), None)
    return [
        Line(
            name="No defense" if row.defense == "none" else words.sentence(row.defense),
            detail=_detail(row),
            note=row.note or "",
            cells=tuple(_cell(column, row, without) for column in columns),
        )
        for row in rows
    ]


def _detail(row: Defense) -> str:
    parts = [f"{row.kind} data" if row.kind else "", f"“{row.system}” prompt" if row.system else ""]
    parts = [" and ".join(row.changes)] if row.changes else parts
    parts += ["shown safe" if row.safe else ""]
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
    filled = tag("rect", width=f"{100 * share:.1f}%", height=3, class_=f"bar b-{BARS.get(group, group)}")
    ground = tag("rect", width="100%", height=3, class_="bar ground")
    return tag("svg", ground, filled, class_="databar", aria_hidden="true", width="100%", height=3)


def _findings(title: str, rows: Sequence[Defense], columns: Sequence[Column], rate: str) -> list[str]:
    without = next((row for row in rows if row.defense == "none"), None)
    if without is None:
        return []
    asked = [column for column in columns if column.group == "jsr" and _mean(column.of(without)) is not None]
    jsr = max(asked, key=lambda column: _mean(column.of(without)) or 0.0, default=None)  # where there is most to bring
    defended = [row for row in rows if row is not without]
    found = [(row, _brought(jsr, row, without, rate) if jsr else "", _cost(columns, row, without)) for row in defended]
    return [
        f"{words.sentence(row.defense)}, {title[:1].lower()}{title[1:]}: {'; '.join(filter(None, (brought, cost)))}."
        for row, brought, cost in found
        if brought or cost
    ]


def _brought(column: Column, row: Defense, without: Defense, rate: str) -> str:
    """'JSR on spoken prompts 80.9 % without, 3.1 % with it', and whether run noise alone may say so."""
    here, there = column.of(row), column.of(without)
    if here is None or there is None or here.mean is None or there.mean is None:
        return ""
    before, after = words.percent(there.mean), words.percent(here.mean)
    text = f"{rate} on {words.spoken(column.modality)} prompts {before} without, {after} with it"
    change = row.against.get(column.modality)
    return text if change is not None and _is_told(change) else f"{text} (run noise alone may say so)"


def _is_told(change: Change) -> bool:
    """Whether the interval of the difference, paired over runs, leaves 0 out; without one as the results say."""
    if change.told is not None:
        return change.told
    return change.low is not None and change.high is not None and not change.low <= 0 <= change.high


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
