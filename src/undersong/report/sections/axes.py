"""What can be known before any training: what a model hears, how near the pool is, and what that foretold of damage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import words
from undersong.report.beforehand import AxisPair, Fingerprint, Foretold, Score, Spread
from undersong.report.panels import Panel, Table, Value, number, share, trained
from undersong.report.schema import Results
from undersong.report.summary import rate_name
from undersong.report.svg import Frame, Scale, percent_axis, strip, tag, ticks

HEIGHT = 190
MEASURES = (("spearman", "rank correlation"), ("overlap", "overlap of the closest quarter"), ("cka", "CKA"))


@dataclass(frozen=True, slots=True)
class Line:
    """A reference axis beside a model's own: its rank correlation drawn, the other measures in words."""

    axis: str
    picture: Markup
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """The fingerprint of one model's own axis."""

    title: str
    verdict: str
    lines: tuple[Line, ...]
    n: str


@dataclass(frozen=True, slots=True)
class Axes:
    """What the section shows; each part may be empty."""

    heard: tuple[Heard, ...]
    scores: Table
    panels: tuple[Panel, ...]
    foretold: Table
    rate: str  # JSR, or non-refusal rate where the judge sees refusal only
    overlap: Table


def build(results: Results) -> Axes | None:
    """None where the results say nothing of it."""
    if not (results.fingerprint or results.screening_score or results.foretold or results.overlap):
        return None
    many, rate = len({one.model for one in results.fingerprint}) > 1, rate_name(results)
    overlap = tuple((one.a, one.b, one.kind, f"{one.pairs:,}") for one in results.overlap)
    return Axes(
        heard=tuple(_heard(one, many) for one in results.fingerprint if one.pairs),
        scores=_scores(results.screening_score),
        panels=tuple(_panels(results.foretold, rate)),
        foretold=_foretold(results.foretold, rate),
        rate=rate,
        overlap=Table("Items that two corpora share or nearly share", ("Corpus", "and", "what", "pairs"), overlap, 3),
    )


def _heard(found: Fingerprint, many: bool) -> Heard:
    named = {label: axis for key, label in MEASURES if (axis := found.hears.get(key))}
    who = f"{found.model}, axis {found.internal}" if many and found.model else f"Axis {found.internal}"
    if not named:
        verdict = "goes along with no reference axis more than with the others, as far as this pool can tell."
    else:
        said = [f"{axis} by {label}" for label, axis in named.items()]
        verdict = f"goes along most with {words.listed(said)}; by the other measures no axis leads clearly."
        verdict = verdict if len(named) < len(MEASURES) else f"goes along most with {words.listed(said)}."
    n = next((f"{words.count(pair.n, 'sample')} in {words.count(pair.clusters, 'group')}" for pair in found.pairs), "")
    return Heard(who, verdict, tuple(_line(pair) for pair in found.pairs), n)


def _line(pair: AxisPair) -> Line:
    value = pair.spearman
    picture = strip(value.value, value.low, value.high, Scale((-1.0, 1.0), (2, 98)), None, reference=0.0)
    overlap = _spread(pair.overlap)
    if pair.chance is not None:
        overlap = f"{overlap} (chance {words.decimal(pair.chance, 2)})"
    return Line(pair.a, picture, (_spread(pair.spearman), overlap, _spread(pair.cka)))


def _spread(value: Spread) -> str:
    if value.low is None or value.high is None:
        return words.decimal(value.value, 2)
    low, high = words.decimal(value.low, 2), words.decimal(value.high, 2)
    return f"{words.decimal(value.value, 2)} [{low},{words.NBSP}{high}]"


def _scores(scores: list[Score]) -> Table:
    head = ("Axis", "model", "score [interval]", "held-out harmless [interval]", "pool / harmless / held out")
    rows = tuple(
        (
            one.axis,
            one.model or words.NONE,
            _spread(one.value),
            _spread(one.heldout),
            " / ".join(f"{n:,}" for n in one.n),
        )
        for one in scores
    )
    return Table("Screening score of the pool", head, rows, 2)


def _panels(foretold: list[Foretold], rate: str) -> Iterator[Panel]:
    """One an axis, model, modality of training and set."""
    differs = [len({getattr(one, key) for one in foretold}) > 1 for key in ("model", "set")]
    for one in foretold:
        points = [(p.score, p.jsr, p.arm) for p in one.points if p.score is not None and p.jsr is not None]
        if not points:
            continue
        extra = [str(name) for name, wanted in zip((one.model, one.set), differs) if wanted and name]
        title = ", ".join([f"{one.axis} axis", *extra, trained(one.train_modality).lower()])
        said = "too few selections, or all alike" if one.spearman.value is None else f"ρ = {_spread(one.spearman)}"
        yield Panel(f"{words.sentence(title)}: {said}, n = {one.n}", _plot(points, title, rate))


def _foretold(foretold: list[Foretold], rate: str) -> Table:
    head = (
        "Selection",
        "Axis of the score",
        "Model",
        "Trained on",
        "Set",
        "score",
        f"{words.sentence(rate)}, %",
        "runs",
    )

    def rows() -> Iterator[tuple[str | Value, ...]]:
        for one in foretold:
            places = (one.axis, *(name or words.NONE for name in (one.model, one.train_modality, one.set)))
            for point in one.points:
                yield point.arm, *places, number(point.score), share(point.jsr), str(point.runs or words.NONE)

    return Table(f"Score of each selection, and mean {rate} after training on it", head, tuple(rows()), names=5)


def _plot(points: list[tuple[float, float, str]], title: str, rate: str) -> Markup:
    xs = [x for x, _, _ in points]
    margin = 0.12 * ((max(xs) - min(xs)) or 0.2)
    domain = (min(xs) - margin, max(xs) + margin)
    top, at = percent_axis(max(y for _, y, _ in points))
    frame = Frame.of(domain, (0.0, top), HEIGHT)
    marks = ticks(*domain, 4)
    foot = [(value, words.decimal(value, words.places(marks))) for value in marks]
    drawn = [frame.grid(at), frame.foot(foot, "screening score of the training samples")]
    if domain[0] < 0 < domain[1]:
        x = f"{frame.x(0.0):.2f}%"
        drawn.append(tag("line", x1=x, x2=x, y1="0", y2=frame.height, class_="level k-base"))
    for x_value, y_value, arm in points:
        about = f"{arm}: score {words.decimal(x_value)}, {rate} {words.percent(y_value)}"
        drawn.append(frame.dot(x_value, y_value, arm.split("/")[1] if "/" in arm else None, about, "run-dot"))
    said = "; ".join(f"{arm} at {words.decimal(x)}: {words.percent(y)}" for x, y, arm in points)
    return frame.draw(drawn, f"{words.sentence(rate)} against screening score, {title}. {said}.")
