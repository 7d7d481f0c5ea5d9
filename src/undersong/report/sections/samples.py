"""Which benign samples stand close to harmful content: by axis, with the nearest harmful item and a player."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import words
from undersong.report.beforehand import Agreement, Near, Screen
from undersong.report.panels import Panel
from undersong.report.schema import Results
from undersong.report.summary import Arm, arms
from undersong.report.svg import Frame, Scale, kind_class, strip, tag, ticks
from undersong.types import UndersongError

HEIGHT = 150
Audio = Mapping[str, tuple[bytes, str]]  # sample id -> (the file's bytes, its media type)


@dataclass(frozen=True, slots=True)
class Item:
    rank: int
    id: str
    text: str
    speaker: str
    distance: str
    further: tuple[str, ...]  # other distances, named
    nearest_id: str
    nearest_text: str
    player: str  # a data: URI, or empty
    nearest_player: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One value of a label: its median distance in a dot chart."""

    label: str
    value: str
    n: str
    median: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class Axis:
    name: str
    facts: str
    quarantined: tuple[tuple[str, str], ...]
    closest: tuple[Item, ...]
    distant: tuple[Item, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Heat:
    """A square table; a cell is (text, share of full colour, style class)."""

    caption: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, float, str], ...]], ...]


@dataclass(frozen=True, slots=True)
class Samples:
    axes: tuple[Axis, ...]
    several: bool  # harm sets
    histograms: tuple[Panel, ...]
    agreement: tuple[Heat, ...]
    speaks: bool  # whether any sample has a player


def build(results: Results, audio: Audio) -> Samples | None:
    if not results.screen and results.axes_agreement is None:
        return None
    many = len({screen.model for screen in results.screen}) > 1
    several = len({screen.harm_set for screen in results.screen}) > 1
    names = [_title(screen, several, many) for screen in results.screen]
    axes = tuple(_axis(screen, name, audio) for screen, name in zip(results.screen, names, strict=True))
    every = arms(results)
    histograms = tuple(
        Panel(words.sentence(name), picture)
        for screen, name in zip(results.screen, names, strict=True)
        if (picture := _histogram(screen, _trained_by(screen, every))) is not None
    )
    return Samples(
        axes=axes,
        several=several,
        histograms=histograms,
        agreement=tuple(_heats(results.axes_agreement)) if results.axes_agreement else (),
        speaks=any(item.player or item.nearest_player for axis in axes for item in (*axis.closest, *axis.distant)),
    )


def _trained_by(screen: Screen, every: Sequence[Arm]) -> list[Arm]:
    """The arms that were selected on this axis, to this harm set."""
    to = {run.harm_set for arm in every for run in arm.runs}
    mine = [arm for arm in every if arm.axis == screen.axis]
    return [arm for arm in mine if to == {None} or arm.runs[0].harm_set == screen.harm_set]


def _title(screen: Screen, several: bool, many: bool) -> str:
    """Of a screen: its axis, and the harm set and model where there are several."""
    to = f" to {screen.harm_set}" if several and screen.harm_set else ""
    return f"{screen.axis} axis{to}" + (f", {screen.model}" if many and screen.model else "")


def _axis(screen: Screen, name: str, audio: Audio) -> Axis:
    near = [*screen.closest, *screen.distant]
    places = words.distances(item.distance for item in near)
    return Axis(
        name=name,
        facts=_facts(screen),
        quarantined=tuple((item.id, item.reason or words.NONE) for item in screen.quarantined),
        closest=tuple(_item(item, i, places, audio) for i, item in enumerate(screen.closest, 1)),
        distant=tuple(_item(item, i, places, audio) for i, item in enumerate(screen.distant, 1)),
        marks=tuple(_marks(screen)),
    )


def _facts(screen: Screen) -> str:
    parts = [
        f"encoder {screen.encoder}" if screen.encoder else "",
        f"{words.count(screen.n_pool, 'sample')} in the pool" if screen.n_pool is not None else "",
        f"{words.count(screen.n_harm, 'harmful item')} as reference" if screen.n_harm is not None else "",
        f"score: {screen.score}" if screen.score else "",
        {True: "centred", False: "not centred", None: ""}[screen.centred],
        f"{len(screen.quarantined)} in quarantine",
    ]
    if screen.distances.get("median") is not None:
        parts.append(
            f"median distance {words.decimal(screen.distances['median'], words.distances(screen.distances.values()))}"
        )
    return words.sentence("; ".join(filter(None, parts)) + ".")


def _item(item: Near, position: int, places: int, audio: Audio) -> Item:
    further = (("centred", item.distance_centred), ("second", item.second_distance))
    return Item(
        rank=item.rank if item.rank is not None else position,
        id=item.id,
        text=item.text or "",
        speaker=item.speaker or "",
        distance=words.decimal(item.distance, places),
        further=tuple(f"{name} {words.decimal(value, places)}" for name, value in further if value is not None),
        nearest_id=item.nearest_id or "",
        nearest_text=item.nearest_text or "",
        player=_player(item.id, audio),
        nearest_player=_player(item.nearest_id or "", audio),
    )


def _player(id: str, audio: Audio) -> str:
    if id not in audio:
        return ""
    content, media_type = audio[id]
    if not re.fullmatch(r"audio/[A-Za-z0-9.+-]+", media_type):
        raise UndersongError(
            f"the media type {media_type!r} of sample {id!r} is not audio: give one such as audio/ogg."
        )
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _marks(screen: Screen) -> Iterable[Mark]:
    """Medians by label, smallest first, on one scale an axis."""
    values = [m.median for group in screen.by_label.values() for m in group.values() if m.median is not None]
    if not values:
        return
    lowest, highest = min(values), max(values)
    x = Scale((lowest, highest) if highest > lowest else (lowest - 1, lowest + 1), (4.0, 96.0))
    places = words.distances(values)
    reference = screen.distances.get("median")
    inside = reference is not None and lowest <= reference <= highest
    for label, group in screen.by_label.items():
        for value, found in sorted(group.items(), key=lambda pair: (pair[1].median is None, pair[1].median or 0.0)):
            picture = strip(found.median, None, None, x, "base", reference=reference if inside else None)
            n = f"{found.n:,}" if found.n is not None else words.NONE
            yield Mark(label, value, n, words.decimal(found.median, min(places, 4)), picture)


def _histogram(screen: Screen, of_axis: Sequence[Arm]) -> Markup | None:
    """Bars of the pool's distances; the part an arm was trained on has its colour."""
    bins = screen.histogram
    if bins is None or not bins.counts or len(bins.edges) != len(bins.counts) + 1 or max(bins.counts) <= 0:
        return None
    frame = Frame.of((bins.edges[0], bins.edges[-1]), (0.0, max(bins.counts)), HEIGHT)
    at = ticks(bins.edges[0], bins.edges[-1], 4)
    places = words.places(at)
    marks = [
        frame.foot([(value, words.decimal(value, places)) for value in at], "distance to the nearest harmful item")
    ]
    share = {
        kind: max((_share(arm, screen) for arm in of_axis if arm.kind == kind), default=0.0)
        for kind in ("closest", "distant")
    }
    total, seen, precise = sum(bins.counts), 0.0, words.distances(bins.edges)
    for low, high, count in zip(bins.edges, bins.edges[1:], bins.counts, strict=False):
        middle = (seen + count / 2) / total
        kind = "closest" if middle <= share["closest"] else "distant" if middle >= 1 - share["distant"] else "random"
        marks.append(_bar(frame, low, high, count, kind, precise))
        seen += count
    about = f"Distances on the {screen.axis} axis: " + ", ".join(
        f"{name} {words.decimal(value, precise)}" for name, value in screen.distances.items() if value is not None
    )
    return frame.draw(marks, f"{about}.")


def _share(arm: Arm, screen: Screen) -> float:
    if arm.k is not None and screen.n_pool:
        return min(arm.k / screen.n_pool, 1.0)
    return arm.fraction or 0.0


def _bar(frame: Frame, low: float, high: float, count: float, kind: str, places: int) -> Markup:
    left, right, top = frame.x(low), frame.x(high), frame.y(count)
    about = f"{words.decimal(low, places)} to {words.decimal(high, places)}: {words.count(int(count), 'sample')}"
    return tag(
        "rect", tag("title", about), x=f"{left:.2f}%", width=f"{max(right - left - 0.3, 0.1):.2f}%", y=top,
        height=HEIGHT - top, class_=f"column {kind_class(kind)}",
    )  # fmt: skip


def _heats(agreement: Agreement) -> Iterable[Heat]:
    named = (
        ("Rank correlation of distances (Spearman)", agreement.spearman),
        ("Overlap of the closest samples (share)", agreement.overlap_closest),
    )
    names = tuple(agreement.axes)
    for caption, matrix in named:
        if names and len(matrix) == len(names) and all(len(row) == len(names) for row in matrix):
            rows = tuple((name, tuple(_heat(value) for value in row)) for name, row in zip(names, matrix, strict=True))
            yield Heat(caption, names, rows)


def _heat(value: float | None) -> tuple[str, float, str]:
    if value is None:
        return words.NONE, 0.0, ""
    return words.decimal(value, 2), round(min(abs(value), 1.0), 3), "below" if value < 0 else "above"
