"""The page of a gate's decision: one HTML file with the verdict, the numbers, the limits, and what was compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from undersong.audits.gate.findings import (
    FAILED,
    INCONCLUSIVE,
    OUTCOME_WORDS,
    PASSED,
    FindingNumbers,
    GateDecision,
    GateFinding,
)
from undersong.audits.gate.output import SCOPE, TABLE_HEADER, gate_sentence
from undersong.escaping import escape_unprintable
from undersong.pages import formatting
from undersong.pages.layout import encode_html, render_layout
from undersong.pages.svg import LinearScale, interval_strip, percent_axis, symmetric_limit
from undersong.pages.tables import Table
from undersong.store.atomic import write_atomic

CONTENTS = (("verdict", "Verdict"), ("limits", "Limits"), ("compared", "What was compared"))
OUTCOME_ORDER = (FAILED, INCONCLUSIVE, PASSED)
FIGURES = {  # kind of finding -> title, caption
    "rise": ("Rises", "Change of each rate in points, with its one-sided bounds. Dashed line: the limit."),
    "margin loss": ("Loss of refusal margin", "Loss in nats, with its one-sided bounds. Dashed line: the limit."),
    "rate": ("Rates", "Each rate in percent; the line ends at what is held against the limit. Dashed line: the limit."),
}


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One row of a figure."""

    label: str
    outcome: str
    note: str
    picture: Markup
    estimate: str
    bounds: str


@dataclass(frozen=True, slots=True)
class GateFigure:
    """The findings of one kind, on one axis."""

    title: str
    caption: str
    rows: tuple[FindingRow, ...]
    ticks: tuple[tuple[float, str], ...]


def render_gate_page(decision: GateDecision) -> str:
    """Render a decision as one HTML document, which loads nothing from elsewhere; it holds no prompt and no reply."""
    decision = _printable(decision)
    findings = sorted(decision.findings, key=lambda finding: OUTCOME_ORDER.index(finding.outcome))
    return render_layout(
        "gate/",
        title="Gate" + (f": {decision.change}" if decision.change else ""),
        models=(),
        contents=CONTENTS,
        decision_sentence=gate_sentence(findings, decision.change).removesuffix(SCOPE).strip(),
        scope=SCOPE,
        figures=list(_figures(findings)),
        undecided=[finding.sentence for finding in findings if finding.outcome == INCONCLUSIVE],
        notes=decision.notes,
        limits=_limit_table(findings),
        corrected=_corrected_rates(findings),
        confidence=f"{100 * decision.confidence:.4g} %",
        change=decision.change,
        compared=Table(
            "The files that were read",
            ("Side", "File", "SHA-256, first 16 digits"),
            tuple((file.role, file.path, file.sha256[:16]) for file in decision.compared),
            names=3,
        ),
    )


def _printable(decision: GateDecision) -> GateDecision:
    """The decision with names as a terminal shows them: a mark of direction in one would turn the numbers around."""
    findings = tuple(
        replace(
            finding,
            model=escape_unprintable(finding.model),
            metric=escape_unprintable(finding.metric),
            sentence=escape_unprintable(finding.sentence),
        )
        for finding in decision.findings
    )
    compared = tuple(replace(file, path=escape_unprintable(file.path)) for file in decision.compared)
    return replace(
        decision,
        findings=findings,
        compared=compared,
        change=escape_unprintable(decision.change),
        notes=tuple(map(escape_unprintable, decision.notes)),
    )


def write_gate_page(decision: GateDecision, path: Path) -> None:
    """Write the page, completely or not at all."""
    write_atomic(path, encode_html(render_gate_page(decision)))


def _corrected_rates(findings: Sequence[GateFinding]) -> str:
    """How many of the rates labels correct: all, some or no."""
    numbers = [finding.numbers for finding in findings if finding.numbers is not None]
    are_corrected = {one.labels is not None for one in numbers if one.kind != "margin loss"}
    return "some" if len(are_corrected) > 1 else "all" if True in are_corrected else "no"


def _limit_table(findings: Sequence[GateFinding]) -> Table:
    rows = tuple(
        (
            finding.model,
            finding.metric,
            OUTCOME_WORDS[finding.outcome],
            finding.estimate,
            finding.lower_bound,
            finding.upper_bound,
            finding.limit,
        )
        for finding in findings
    )
    head = tuple(name.capitalize() for name in (*TABLE_HEADER[:2], "outcome", *TABLE_HEADER[2:6]))
    caption = "Rises of rates and their bounds are in points, those of the refusal margin in nats"
    return Table(caption, head, rows, names=4)


def _figures(findings: Sequence[GateFinding]) -> Iterator[GateFigure]:
    for kind, (title, caption) in FIGURES.items():
        measured = [
            (finding, finding.numbers)
            for finding in findings
            if finding.numbers is not None and finding.numbers.kind == kind and finding.numbers.after is not None
        ]
        if measured:
            scale, ticks = _axis(kind, [numbers for _, numbers in measured])
            rows = tuple(_row(finding, numbers, scale) for finding, numbers in measured)
            yield GateFigure(title, caption, rows, ticks)


def _axis(kind: str, numbers: Sequence[FindingNumbers]) -> tuple[LinearScale, tuple[tuple[float, str], ...]]:
    ends = [end for one in numbers for end in (one.low, one.high, one.limit, _estimate(one))]
    if kind == "rate":
        highest, ticks = percent_axis(max(end for end in ends if end is not None))
        scale = LinearScale((0.0, highest), (0.0, 100.0))
        return scale, tuple((scale(value), label) for value, label in ticks)
    limit = symmetric_limit(ends)
    scale = LinearScale((-limit, limit), (0.0, 100.0))
    text = formatting.signed if kind == "margin loss" else formatting.points
    return scale, tuple((scale(value), text(value)) for value in (-limit, 0.0, limit))


def _estimate(numbers: FindingNumbers) -> float | None:
    """What the limit applies to: the rate, or its rise, or the loss of margin."""
    if numbers.kind == "rate" or numbers.after is None or numbers.before is None:
        return numbers.after
    rise = numbers.after - numbers.before
    return -rise if numbers.kind == "margin loss" else rise


def _row(finding: GateFinding, numbers: FindingNumbers, scale: LinearScale) -> FindingRow:
    value = _estimate(numbers)
    low = value if numbers.low is None else numbers.low
    lowest, highest = scale.domain
    low, high = (None if end is None else max(lowest, min(highest, end)) for end in (low, numbers.high))
    text = formatting.signed if numbers.kind == "margin loss" else formatting.points
    bounds = " to ".join("–" if end is None else text(end) for end in (numbers.low, numbers.high))
    return FindingRow(
        label=finding.metric,
        outcome=OUTCOME_WORDS[finding.outcome],
        note=f"{finding.model}; {finding.estimate}",
        picture=interval_strip(value, low, high, scale, "base", reference=numbers.limit, grid_values=(lowest, 0.0)),
        estimate=formatting.percent(value) if numbers.kind == "rate" else text(value),
        bounds=f"at most {finding.upper_bound}" if numbers.kind == "rate" else bounds,
    )
