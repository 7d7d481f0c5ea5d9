"""JSR of every arm over training steps, beside the base."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from undersong.report import words
from undersong.report.case import case
from undersong.report.panels import Group, Panel, Table, Value, jitter, share, trained
from undersong.report.schema import Results, Run
from undersong.report.summary import Arm, Cell, Estimate, Facet, View, estimate, facets, relation, view
from undersong.report.svg import Frame, kind_class, percent_axis, tag, ticks

HEIGHT = 216


@dataclass(frozen=True, slots=True)
class Damage:
    """Curves by facet, training modality and prompt modality.

    `finding`: how many of the arms stand above the base, or empty; `numbers`: the same as a table.
    """

    rate: str
    top: str  # where the y axis ends
    finding: str
    groups: tuple[Group, ...]
    numbers: Table


def build(results: Results) -> Damage | None:
    """None where no arm was tuned, or none was asked harmful prompts."""
    shown, every = view(results), facets(results)
    if shown is None or not every:
        return None
    top = percent_axis(max(_highest(every, shown), default=1.0))[0]
    groups = [Group(facet.title, tuple(_panels(facet, shown, top))) for facet in every]
    groups = [group for group in groups if group.panels]
    if not groups:
        return None
    rows = tuple(row for facet in every for row in _numbers(facet, shown))
    head = ("Arm", "Base", "Prompts", "Step", "runs", "n, prompts a run", f"{shown.rate}, % [95 %]", "neither, %")
    return Damage(
        rate=shown.rate,
        top=f"{100 * top:g}{words.THIN}%",
        finding=_finding(results),
        groups=tuple(groups),
        numbers=Table(f"{shown.rate} by arm and step", head, rows, names=3),
    )


def _highest(every: Iterable[Facet], shown: View) -> Iterable[float]:
    for facet in every:
        for modality in ("audio", "text"):
            base = estimate(shown.cells(facet.bases, modality))
            points = [point for arm in facet.arms for _, point in curve(arm, shown, modality, base)]
            yield from (cell.rate for arm in facet.arms for cell in shown.cells(arm.runs, modality))
            yield from (max(point.mean, point.high or 0.0) for point in [*points, *([base] if base else [])])


def curve(arm: Arm, shown: View, modality: str, base: Estimate | None) -> list[tuple[int, Estimate]]:
    """The arm's mean at each step it was asked at; an arm without a step 0 of its own starts at the base."""
    steps = sorted({run.step for run in arm.runs})
    points = [(step, estimate(shown.cells(arm.at(step), modality))) for step in steps]
    measured = [(step, point) for step, point in points if point is not None]
    if measured and base is not None and measured[0][0] > 0:
        return [(0, base), *measured]
    return measured


def _panels(facet: Facet, shown: View, top: float) -> Iterable[Panel]:
    for train_modality in facet.train_modalities:
        for modality in ("audio", "text"):
            arms = [arm for arm in facet.of(train_modality) if shown.cells(arm.runs, modality)]
            if arms:
                title = f"{trained(train_modality)} · {words.spoken(modality)} prompts"
                yield Panel(title, _plot(facet, arms, shown, modality, top, title))


def _plot(facet: Facet, arms: Sequence[Arm], shown: View, modality: str, top: float, title: str) -> Markup:
    steps = sorted({0, *(run.step for arm in facet.arms for run in arm.runs)})
    frame = Frame.of((steps[0], steps[-1]), (0.0, top), HEIGHT, inset=3)
    base = estimate(shown.cells(facet.bases, modality))
    marks = [frame.grid(percent_axis(top)[1]), frame.foot(_step_ticks(steps), "training steps")]
    labels = []
    if base is not None:
        marks.append(frame.level(base.mean, "k-base", base.low, base.high))
        labels.append((base.mean, f"base {words.bare(base.mean)}", "k-base"))
    shifts = jitter([arm.name for arm in arms], 5.0)
    for arm in arms:
        points = curve(arm, shown, modality, base)
        lines = _runs(frame, arm, shown, modality, base), _mean(frame, arm, points, steps)
        marks.append(tag("g", *lines, transform=f"translate({shifts[arm.name]:g} 0)"))
        labels.append((points[-1][1].mean, f"{arm.kind} {words.bare(points[-1][1].mean)}", kind_class(arm.kind)))
    about = f"{title}: {shown.rate} over training steps. " + "; ".join(f"{text}{words.THIN}%" for _, text, _ in labels)
    return frame.draw([*marks, frame.right_labels(labels)], about + " at the last step.")


def _step_ticks(steps: Sequence[int]) -> list[tuple[float, str]]:
    chosen: Sequence[float] = steps if len(steps) <= 6 else ticks(steps[0], steps[-1], 5)
    return [(step, f"{step:g}") for step in chosen]


def _runs(frame: Frame, arm: Arm, shown: View, modality: str, base: Estimate | None) -> Markup:
    """Every run as a thin line, where there is more than one."""
    by_run: dict[tuple[object, ...], list[Run]] = {}
    for run in sorted(arm.runs, key=lambda run: run.step):
        by_run.setdefault((run.base_seed, run.draw, run.seed), []).append(run)
    lines = []
    for runs in by_run.values():
        known = [(float(cell.run.step), cell.rate) for cell in shown.cells(runs, modality)]
        if known and base is not None and known[0][0] > 0:
            known.insert(0, (0.0, base.mean))
        if len(by_run) > 1 and len(known) > 1:
            lines.append(frame.path(known, f"run {kind_class(arm.kind)}"))
    return Markup("").join(lines)


def _mean(frame: Frame, arm: Arm, points: Sequence[tuple[int, Estimate]], steps: Sequence[int]) -> Markup:
    """The thick line, dotted across steps that were not asked about, with a dot and its interval at each that was."""
    marks = []
    for (start, a), (end, b) in pairwise(points):
        skipped = any(start < step < end for step in steps)
        style = f"mean {kind_class(arm.kind)}{' gap' if skipped else ''}"
        marks.append(frame.path([(start, a.mean), (end, b.mean)], style))
    for step, point in points:
        if step == 0 and len(points) > 1:
            continue  # the base stands there already
        if point.low is not None and point.high is not None:
            marks.append(frame.whisker(step, point.low, point.high, kind_class(arm.kind)))
        about = f"{arm.label}, step {step}: {words.percent(point.mean)} {words.bracket(point.low, point.high)}"
        marks.append(frame.dot(step, point.mean, arm.kind, f"{about}, {words.count(point.runs, 'run')}"))
    return Markup("").join(marks)


def _numbers(facet: Facet, shown: View) -> Iterable[tuple[str | Value, ...]]:
    base = ", ".join(dict.fromkeys(str(run.base_seed) for run in facet.bases if run.base_seed is not None))
    for name, of_arm in [("base", [(0, list(facet.bases))]), *((arm.short, _by_step(arm)) for arm in facet.arms)]:
        for modality in ("audio", "text"):
            for step, runs in of_arm:
                cells = shown.cells(runs, modality)
                number = estimate(cells)
                if number is not None:
                    yield (
                        name, base or words.NONE, words.spoken(modality), str(step), str(number.runs), f"{number.n:,}",
                        share(number.mean, number.low, number.high), share(_neither(cells)),
                    )  # fmt: skip


def _by_step(arm: Arm) -> list[tuple[int, list[Run]]]:
    return [(step, arm.at(step)) for step in sorted({run.step for run in arm.runs})]


def _neither(cells: Sequence[Cell]) -> float | None:
    """The share of replies that are neither compliance nor refusal, or could not be judged."""
    asked = sum(cell.row.n for cell in cells)
    left = sum(cell.row.other + cell.row.unparsed + cell.row.error for cell in cells)
    return left / asked if asked else None


def _finding(results: Results) -> str:
    """How many arms stand above the base, as their intervals say."""
    found = case(results)
    if found is None or found.base is None or not found.measured:
        return ""
    states = [relation(item.estimate, found.base, found.against_base(item)) for item in found.measured]
    said = [
        (states.count("higher"), "above the base"),
        (states.count("same"), "not distinguishable from the base"),
        (states.count("lower"), "below the base"),
        (states.count("unknown"), "without an interval to judge by"),
    ]
    parts = [f"{n} {'is' if n == 1 else 'are'} {what}" for n, what in said if n]
    arms = words.count(len(states), "arm")
    return f"Of {arms}, asked in {words.spoken(found.modality)} form at the last step, {words.listed(parts)}."
