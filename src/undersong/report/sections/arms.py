"""Every arm at its last step beside the base, asked by voice and in writing: the numbers that a headline is made of."""

from __future__ import annotations

from collections.abc import Iterator

from undersong.report import words
from undersong.report.case import Case, cases
from undersong.report.panels import Table, Value
from undersong.report.schema import Results
from undersong.report.summary import Estimate, relation

AGAINST = {"higher": ", above the base", "lower": ", below the base", "same": "", "unknown": ""}


def build(results: Results) -> Table | None:
    """A row an arm, a column a modality of the prompts; None where no harmful prompt was asked."""
    both = sorted(cases(results), key=lambda case: case.modality)
    found: dict[str, dict[str, tuple[Estimate, str]]] = {}  # arm -> modality -> the rate there, how it is to the base
    for case in both:
        for name, number, against in _measured(case):
            found.setdefault(name, {})[case.modality] = number, against
    if not found:
        return None
    asked, rate = [case.modality for case in both], words.sentence(both[0].view.rate)
    rows: list[tuple[str | Value, ...]] = []
    for name, numbers in found.items():
        cells = [_cell(*numbers[m]) if m in numbers else Value(words.NONE, None) for m in asked]
        runs, sizes = (dict.fromkeys(of(number) for number, _ in numbers.values()) for of in (_runs, _size))
        rows.append((name, *cells, ", ".join(runs), ", ".join(sizes)))
    head = ("Arm", *(f"{rate}, {words.spoken(modality)}" for modality in asked), "runs", "n, prompts a run")
    caption = f"{rate} of every arm at its last step, with 95 % intervals; one that can be told from the base says so"
    return Table(caption, head, tuple(rows))


def _measured(case: Case) -> Iterator[tuple[str, Estimate, str]]:
    if case.base is not None:
        yield "base", case.base, ""
    for item in case.measured:
        decided = relation(item.estimate, case.base, case.against_base(item)) if case.base is not None else "unknown"
        yield item.arm.label, item.estimate, AGAINST[decided]


def _cell(number: Estimate, against: str) -> Value:
    interval = words.bracket(number.low, number.high) or "no interval"
    lost = f" (failures counted: {words.percent(number.most)})" if number.lost else ""
    ends = (None if end is None else 100 * end for end in (number.low, number.high))
    return Value(f"{words.percent(number.mean)} {interval}{lost}{against}", 100 * number.mean, *ends)


def _runs(number: Estimate) -> str:
    return str(number.runs)


def _size(number: Estimate) -> str:
    return f"{number.n:,} in {words.count(number.clusters, 'cluster')}" if number.clusters else f"{number.n:,}"
