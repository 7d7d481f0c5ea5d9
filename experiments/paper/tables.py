"""The tables of docs/results/paper.md: a claim's answers, printed figures beside ours, what defenses cost, what can be seen.

Every cell is escaped.  Knows answers and how numbers are written; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan

from experiments.paper.agreement import MOST_COPIES, NOTHING, OPEN_WORDS, Estimate, units_to_settle
from experiments.paper.answers import Answer, Answered
from experiments.paper.cells import TABLES, Cell, cells
from experiments.paper.claims import DISTANT, ORGANISMS, SYSTEM, Unit
from experiments.paper.evidence import Contrast, Evidence, Side
from undersong.pages import formatting
from undersong.pages.markdown_table import escape_markdown, markdown_table
from undersong.research.verify import PublishedRate, published_source
from undersong.statistics.power import detectable_difference
from undersong.study.planning.power import STANDARD_DEVIATIONS

MARK = "†"
SETS = ("AdvBench", "SafetyBench", "BBH")


def brief(answer: Answer, unit: Unit) -> str:
    """An estimate, its interval and its word in one cell."""
    found = answer.found
    if found is None:
        return formatting.MISSING
    return " ".join(part for part in (value_text(found, unit), interval_text(found, unit), f"({answer.word})") if part)


def value_text(found: Estimate, unit: Unit) -> str:
    """The estimate in its unit."""
    if unit == "fact":
        return {1.0: "yes", 0.0: "no"}.get(found.value, "open")
    if isnan(found.value):
        return formatting.MISSING
    if unit == "gap":
        return formatting.decimal(found.value, 2)
    return formatting.percent_number(found.value) if unit == "rate" else formatting.points(found.value)


def interval_text(found: Estimate, unit: Unit) -> str:
    """Its interval in its unit; empty without one."""
    if unit == "fact" or found.low is None or found.high is None:
        return ""
    if unit == "gap":
        return f"[{formatting.decimal(found.low, 2)}, {formatting.decimal(found.high, 2)}]"
    return formatting.bracket(found.low, found.high)


@dataclass(frozen=True)
class Families:
    """How many questions Holm's correction is over: those on which the paper says something, and the others."""

    said: int
    silent: int

    def of(self, answer: Answer) -> int:
        """That of the family which an answer is in."""
        return self.silent if answer.expected.side == "nothing" else self.said


def families(found: Sequence[Answered]) -> Families:
    """Counts of what has a p value."""
    tested = [a for one in found for a in one.answers if a.found is not None and a.found.p is not None]
    silent = sum(answer.expected.side == "nothing" for answer in tested)
    return Families(len(tested) - silent, silent)


def part_lines(part: str, found: Sequence[Answered], sizes: Families) -> list[str]:
    """A part of the paper, claim by claim."""
    lines = [f"## {part}"]
    for one in found:
        rows = []
        for answer in one.answers:
            *cells, word = answer_row(answer, one.claim.unit, sizes.of(answer))
            rows.append((*cells, _needed(answer, sizes.of(answer)), word))
        heads = (
            "organism", "paper", "estimate", "95% interval", "interval over", "runs (units)", "p", "p (Holm)",
            "detectable", "units needed", "conclusion"
        )  # fmt: skip
        lines += ["", f"### {one.claim.title}", "", f"**The paper:** {one.claim.says}", ""]
        lines += [
            f"**Measured:** {one.claim.measured}.",
            "",
            *markdown_table(heads, rows),
            "",
            f"Conclusion: **{one.word}**.",
        ]
        if one.claim.depends:
            lines += ["", f"{one.claim.depends}: **{one.depends}**."]
    return lines


def answer_row(answer: Answer, unit: Unit, family: int) -> tuple[str, ...]:
    """Who answers, what the paper says, the estimate, its interval, over what, of how many runs, p, corrected, what
    would show, the word."""
    found, expected = answer.found, answer.expected.in_words()
    if unit == "fact" and answer.expected.side != "nothing":
        expected = "yes"
    if found is None:
        return (answer.organism, expected, *(formatting.MISSING,) * 7, answer.word)
    least = formatting.MISSING if found.sd is None else _least(found.units, found.sd, family, unit)
    return (
        answer.organism, expected, value_text(found, unit), interval_text(found, unit) or formatting.MISSING, found.over,
        f"{found.runs} ({found.units})", formatting.p_value(found.p), formatting.p_value(found.p_adjusted),
        least, answer.word,
    )  # fmt: skip


def _needed(answer: Answer, family: int) -> str:
    """How many units settle a question that is undecided, at the observed estimate and spread."""
    found = answer.found
    if found is None or found.p is None or answer.word not in OPEN_WORDS:
        return formatting.MISSING
    needed = units_to_settle(found, answer.expected, max(1, family))
    return f"over {MOST_COPIES * found.units}" if needed is None else str(needed)


def beside_lines(evidence: Evidence) -> Iterator[str]:
    """Every printed figure, with its mark, and the runs that stand for it."""
    yield "## Published figures beside ours"
    yield ""
    yield (
        "All rates are percentages. Do not compare levels between the published models and the organisms.\n\n"
        f"- **Published**: one run each, with failed prompts left out. {MARK} marks a figure that no count of all 520 or 939 "
        f"prompts can give. It has another denominator, or it is a misprint. Source: {escape_markdown(published_source())}.\n"
        "- **Ours**: spoken requests, mean over runs, with 95% intervals over runs. Before tuning, "
        "the intervals are over prompts."
    )
    for study, title in TABLES.items():
        mine = cells(evidence, study)
        there = [name for name in SETS if any(figure.set_name == name for cell in mine for figure in cell.printed)]
        yield f"\n### {title}\n"
        yield from markdown_table(
            ("model", "condition", "% of the pool", *there, "organism", "95% interval", "runs"),
            [_cell_row(cell, there) for cell in mine],
        )


def _cell_row(cell: Cell, there: Sequence[str]) -> tuple[str, ...]:
    figures = {figure.set_name: printed(figure) for figure in cell.printed}
    ours = cell.ours
    level = (
        (formatting.MISSING,) * 3
        if ours is None
        else (formatting.percent_number(ours.value), interval_text(ours, "rate"), str(ours.runs))
    )
    fraction = formatting.MISSING if cell.fraction is None else str(cell.fraction)
    return (cell.family, cell.condition, fraction, *(figures.get(name, formatting.MISSING) for name in there), *level)


def printed(figure: PublishedRate) -> str:
    """Per cent, marked where it is no share of all prompts."""
    return f"{figure.percent:.2f}{MARK if figure.is_possible is False else ''}"


def charged_lines(evidence: Evidence) -> list[str]:
    """JSR, over-refusal and usefulness of each defense in one row."""
    conditions = {
        "closest, no defense": (SYSTEM, "closest", "plain"),
        "distant data": (DISTANT, "distant", "plain"),
        "system prompt": (SYSTEM, "closest", "safe"),
    }
    rows = []
    for organism in ORGANISMS:
        for name, (where, kind, system) in conditions.items():
            sides = (
                Side(where, kind, system=system),
                Side(where, kind, system=system, sets=("near",), counted="refused"),
                Side(where, kind, system=system, sets=("far",), counted="right"),
            )
            found = [Contrast(None, side).estimate(evidence, organism, NOTHING) for side in sides]
            rows.append((organism, name, *map(level_of, found)))
    return [
        "## What the defenses cost",
        "",
        "Rates on spoken requests in percent: the mean over the 25% arms of four axes, with 95% intervals over runs. The "
        "paper measured neither of the last two columns.",
        "",
        *markdown_table(("organism", "condition", "JSR", "near-benign refused", "far-benign answered correctly"), rows),
    ]


def level_of(found: Estimate | None) -> str:
    """A rate and its interval, in per cent."""
    return (
        formatting.MISSING
        if found is None
        else f"{formatting.percent_number(found.value)} {interval_text(found, 'rate')}".strip()
    )


def detectable_lines(found: Sequence[Answered]) -> list[str]:
    """The smallest differences that such a design shows, by the spread of its units."""
    units = sorted(
        {a.found.units for one in found for a in one.answers if a.found is not None and a.found.p is not None}
    )
    family = max(1, families(found).said)
    rows = [
        (str(count), f"{100 * sd:g}", *(_least(count, sd, size) for size in (1, family)))
        for count in units
        for sd in STANDARD_DEVIATIONS
    ]
    return [
        "## What this design can detect",
        "",
        "The table gives the smallest difference, in points, that this design detects with a power of 80%. It depends on how "
        "much the paired differences of the units vary. The column “detectable” in the tables above is the same at the "
        "observed spread, corrected for the whole family.",
        "",
        "The column “units needed” says how many units settle an undecided question if further units have the mean and the "
        "spread of these: with a power of 80% for a t-test, and where a bound decides, the number of copies of these "
        "units at which it excludes the threshold. Both are corrected for the whole family. Such a number is a rough guide, because the "
        "estimate that it starts from is uncertain itself.",
        "",
        *markdown_table(("units", "spread (SD)", "one question", f"corrected for {family} questions"), rows),
    ]


PROMISED = 0.18  # difference that twelve bases detect by registration.md, at a spread of 13 points


def promised_lines(found: Sequence[Answered]) -> list[str]:
    """Whether the differences spread as little as the registration expected."""
    family = max(1, families(found).said)
    least = [
        detectable_difference(a.found.units, a.found.sd, comparisons=family)
        for one in found
        for a in one.answers
        if one.claim.unit == "points" and a.found is not None and a.found.sd is not None
    ]
    kept = sum(value is not None and value <= PROMISED for value in least)
    return [
        "",
        f"The registration expected paired differences with a spread of 13 points, of which twelve bases detect {100 * PROMISED:.0f} after "
        f"correction. Of the {len(least)} differences with a spread here, {kept} can be detected at {100 * PROMISED:.0f} points or less. The others spread "
        "more than expected.",
    ]


def _least(units: int, sd: float, family: int, unit: Unit = "points") -> str:
    """Of shares none is larger than 1."""
    value = detectable_difference(units, sd, comparisons=max(1, family))
    if value is None or (unit != "gap" and value > 1):
        return "none"
    return formatting.decimal(value, 2) if unit == "gap" else f"{100 * value:.0f}"
