"""Which benign samples stand close to harmful content: by axis, with the nearest harmful item and a player."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import words
from undersong.report.beforehand import Agreement, Near, Screen
from undersong.report.clips import SECONDS, Audio, Heard, Players, players
from undersong.report.panels import Panel, Table
from undersong.report.schema import Results
from undersong.report.sections import distances
from undersong.report.svg import Scale, strip


@dataclass(frozen=True, slots=True)
class Item:
    """A benign sample, its nearest harmful item and their distance; no player where its audio is not in the page."""

    rank: int
    id: str
    text: str
    speaker: str
    distance: str
    further: tuple[str, ...]  # other distances, named
    nearest_id: str
    nearest_text: str
    player: Heard | None
    nearest_player: Heard | None


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
    """One screen: an axis, and the harm set and model where there are several; `facts`: one sentence about it."""

    name: str
    facts: str
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
    """What was screened, axis by axis: `histograms` and `bins` in the order of `axes`; `agreement` of axes with one
    another."""

    axes: tuple[Axis, ...]
    several: bool  # harm sets
    histograms: tuple[Panel, ...]
    bins: Table
    agreement: tuple[Heat, ...]
    speaks: bool  # whether any sample has a player
    silent: str  # which clips have no player, or are cut; or empty
    quarantined: Table | None


def build(results: Results, audio: Audio) -> Samples | None:
    """None where nothing was screened and no agreement of axes measured.  `audio`: sample id -> its file."""
    if not results.screen and results.axes_agreement is None:
        return None
    many = len({screen.model for screen in results.screen}) > 1
    several = len({screen.harm_set for screen in results.screen}) > 1
    names = [_title(screen, several, many) for screen in results.screen]
    played = players(results.screen, audio)
    axes = tuple(_axis(screen, name, played.heard) for screen, name in zip(results.screen, names, strict=True))
    return Samples(
        axes=axes,
        several=several,
        histograms=distances.panels(results, names),
        bins=distances.table(results.screen, names),
        agreement=tuple(_heats(results.axes_agreement)) if results.axes_agreement else (),
        speaks=bool(played.heard),
        silent=_silent(played),
        quarantined=_quarantined(results.screen, names),
    )


def _silent(played: Players) -> str:
    said = []
    if played.cut:
        said.append(f"{words.count(played.cut, 'clip')} cut to {SECONDS}{words.THIN}s")
    if played.left:
        said.append(f"{words.count(played.left, 'clip')} without a player")
    return f"To keep this file small: {words.listed(said)}." if said else ""


def _quarantined(screens: Sequence[Screen], names: Sequence[str]) -> Table | None:
    """What was left out, of every axis; None where nothing was."""
    left: dict[tuple[str, str], list[str]] = {}
    for screen, name in zip(screens, names, strict=True):
        for item in screen.quarantined:
            left.setdefault((item.id, item.reason or words.NONE), []).append(name)
    rows = tuple((id, reason, ", ".join(axes)) for (id, reason), axes in left.items())
    return Table("In quarantine: left out, and why", ("Sample", "Reason", "Axes"), rows, names=3) if rows else None


def _title(screen: Screen, several: bool, many: bool) -> str:
    """Of a screen: its axis, and the harm set and model where there are several."""
    to = f" to {screen.harm_set}" if several and screen.harm_set else ""
    return f"{screen.axis} axis{to}" + (f", {screen.model}" if many and screen.model else "")


def _axis(screen: Screen, name: str, heard: Mapping[str, Heard]) -> Axis:
    near = [*screen.closest, *screen.distant]
    places = words.distances(item.distance for item in near)
    return Axis(
        name=name,
        facts=_facts(screen),
        closest=tuple(_item(item, i, places, heard) for i, item in enumerate(screen.closest, 1)),
        distant=tuple(_item(item, i, places, heard) for i, item in enumerate(screen.distant, 1)),
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


def _item(item: Near, position: int, places: int, heard: Mapping[str, Heard]) -> Item:
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
        player=heard.get(item.id),
        nearest_player=heard.get(item.nearest_id or ""),
    )


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
