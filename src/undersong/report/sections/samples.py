"""The closest and most distant benign samples by axis, with audio players, distance histograms, quarantine and axis
agreement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.audio_players import MAX_CLIP_SECONDS, AudioPlayer, EmbeddedPlayers
from undersong.pages.svg import LinearScale, PlotFrame, interval_strip, kind_class, tag, ticks
from undersong.pages.tables import NumberCell, Panel, Table, number_cell
from undersong.report.summary import ArmSummary, arm_summaries
from undersong.results.schema import Results
from undersong.results.schema_screening import AxisAgreementRecord, AxisScreening, NeighborPair

HEIGHT = 150


def histogram_panels(results: Results, names: Sequence[str]) -> tuple[Panel, ...]:
    """Draw one histogram per screening, in their order; `names` are their titles."""
    arm_list = arm_summaries(results)
    return tuple(
        Panel(formatting.capitalize_first(name), picture)
        for screen, name in zip(results.screening, names, strict=True)
        if (picture := _histogram(screen, _arms_on_axis(screen, arm_list))) is not None
    )


def _arms_on_axis(screen: AxisScreening, arm_list: Sequence[ArmSummary]) -> list[ArmSummary]:
    """The arms that were selected on this axis, to this harm set."""
    harm_sets = {run.harm_set for arm in arm_list for run in arm.runs}
    axis_arms = [arm for arm in arm_list if arm.axis == screen.axis]
    return [arm for arm in axis_arms if harm_sets == {None} or arm.runs[0].harm_set == screen.harm_set]


def _histogram(screen: AxisScreening, axis_arms: Sequence[ArmSummary]) -> Markup | None:
    """Bars of the pool's distances; the part an arm was trained on has its color."""
    bins = screen.histogram
    if not bins.counts or len(bins.edges) != len(bins.counts) + 1 or max(bins.counts) <= 0:
        return None
    frame = PlotFrame.from_domains((bins.edges[0], bins.edges[-1]), (0.0, max(bins.counts)), HEIGHT)
    x_ticks = ticks(bins.edges[0], bins.edges[-1], 4)
    tick_decimals = formatting.decimals_needed(x_ticks)
    marks = [
        frame.x_axis(
            [(value, formatting.decimal(value, tick_decimals)) for value in x_ticks],
            "distance to the nearest harmful item",
        )
    ]
    selected_shares = {
        kind: max((_selected_share(arm, screen) for arm in axis_arms if arm.kind == kind), default=0.0)
        for kind in ("closest", "distant")
    }
    total, cumulative, decimals = sum(bins.counts), 0.0, formatting.distance_decimals(bins.edges)
    for low, high, count in zip(bins.edges, bins.edges[1:], bins.counts, strict=False):
        middle = (cumulative + count / 2) / total
        kind = (
            "closest"
            if middle <= selected_shares["closest"]
            else "distant"
            if middle >= 1 - selected_shares["distant"]
            else "random"
        )
        marks.append(_histogram_bar(frame, low, high, count, kind, decimals))
        cumulative += count
    description = f"Distances on the {screen.axis} axis: " + ", ".join(
        f"{name} {formatting.decimal(value, decimals)}" for name, value in screen.distances
    )
    return frame.draw(marks, f"{description}.")


def histogram_table(screens: Sequence[AxisScreening], names: Sequence[str]) -> Table:
    """The bins of all histograms, a row each; `names` of the screens, in their order."""

    def rows() -> Iterator[tuple[str | NumberCell, ...]]:
        for screen, name in zip(screens, names, strict=True):
            bins = screen.histogram
            decimals = formatting.distance_decimals(bins.edges)
            for low, high, count in zip(bins.edges, bins.edges[1:], bins.counts, strict=False):
                ends = (number_cell(end, decimals=decimals) for end in (low, high))
                yield formatting.capitalize_first(name), *ends, NumberCell(f"{count:,.0f}", count)

    return Table("Pool samples by distance", ("Axis", "from", "to", "samples"), tuple(rows()))


def _selected_share(arm: ArmSummary, screen: AxisScreening) -> float:
    if arm.k is not None and screen.n_pool:
        return min(arm.k / screen.n_pool, 1.0)
    return arm.fraction or 0.0


def _histogram_bar(frame: PlotFrame, low: float, high: float, count: float, kind: str, decimals: int) -> Markup:
    left, right, top = frame.x(low), frame.x(high), frame.y(count)
    description = (
        f"{formatting.decimal(low, decimals)} to {formatting.decimal(high, decimals)}: "
        f"{formatting.count(int(count), 'sample')}"
    )
    return tag(
        "rect", tag("title", description), x=f"{left:.2f}%", width=f"{max(right - left - 0.3, 0.1):.2f}%", y=top,
        height=HEIGHT - top, class_=f"column {kind_class(kind)}",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A benign sample, its nearest harmful item and their distance; no player where its audio is not in the page."""

    rank: int
    id: str
    text: str
    speaker: str
    distance: str
    further: tuple[str, ...]  # other distances, named
    nearest_id: str
    nearest_text: str
    player: AudioPlayer | None
    nearest_player: AudioPlayer | None


@dataclass(frozen=True, slots=True)
class LabelMedianMark:
    """One value of a label: its median distance in a dot chart."""

    label: str
    value: str
    n: str
    median: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class AxisSamples:
    """Samples of one axis, and of one harm set and model if there are several; `facts` is a sentence about it."""

    name: str
    facts: str
    closest: tuple[SampleRow, ...]
    distant: tuple[SampleRow, ...]
    marks: tuple[LabelMedianMark, ...]


@dataclass(frozen=True, slots=True)
class AgreementHeatmap:
    """A square table; a cell is (text, share of full color, style class)."""

    caption: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, float, str], ...]], ...]


@dataclass(frozen=True, slots=True)
class SamplesSection:
    """Closest and most distant samples by axis, with their distance histograms and the agreement between axes.

    `histograms` and `bins` follow the order of `axes`.
    """

    axes: tuple[AxisSamples, ...]
    several: bool  # harm sets
    histograms: tuple[Panel, ...]
    bins: Table
    agreement: tuple[AgreementHeatmap, ...]
    speaks: bool  # whether any sample has a player
    silent: str  # which clips have no player, or are cut; or empty
    quarantined: Table | None


def build_samples(results: Results, embedded: EmbeddedPlayers) -> SamplesSection | None:
    """Build the section of screened samples; None without screening and axis agreement.

    `embedded` has the players of the page.
    """
    if not results.screening and results.axis_agreement is None:
        return None
    several_models = len({screen.model for screen in results.screening}) > 1
    several_harm_sets = len({screen.harm_set for screen in results.screening}) > 1
    names = [_screening_title(screen, several_harm_sets, several_models) for screen in results.screening]
    axes = tuple(
        _axis_samples(screen, name, embedded.by_id) for screen, name in zip(results.screening, names, strict=True)
    )
    return SamplesSection(
        axes=axes,
        several=several_harm_sets,
        histograms=histogram_panels(results, names),
        bins=histogram_table(results.screening, names),
        agreement=tuple(_heatmaps(results.axis_agreement)) if results.axis_agreement else (),
        speaks=bool(embedded.by_id),
        silent=_missing_audio_note(embedded),
        quarantined=_quarantine_table(results.screening, names),
    )


def _missing_audio_note(embedded: EmbeddedPlayers) -> str:
    phrases = []
    if embedded.truncated:
        phrases.append(
            f"{formatting.count(embedded.truncated, 'clip')} cut to {MAX_CLIP_SECONDS}{formatting.THIN_SPACE}s"
        )
    if embedded.skipped:
        phrases.append(f"{formatting.count(embedded.skipped, 'clip')} without a player")
    return f"To keep this file small: {formatting.join_items(phrases)}." if phrases else ""


def _quarantine_table(screens: Sequence[AxisScreening], names: Sequence[str]) -> Table | None:
    """Build the table of quarantined items of every axis; None if there are none."""
    axes_by_item: dict[tuple[str, str], list[str]] = {}
    for screen, name in zip(screens, names, strict=True):
        for item in screen.quarantined:
            axes_by_item.setdefault((item.id, item.reason), []).append(name)
    rows = tuple((id, reason, ", ".join(axes)) for (id, reason), axes in axes_by_item.items())
    return Table("Quarantined samples and reasons", ("Sample", "Reason", "Axes"), rows, names=3) if rows else None


def _screening_title(screen: AxisScreening, several_harm_sets: bool, several_models: bool) -> str:
    """Of a screen: its axis, and the harm set and model where there are several."""
    harm_set_suffix = f" to {screen.harm_set}" if several_harm_sets and screen.harm_set else ""
    return f"{screen.axis} axis{harm_set_suffix}" + (f", {screen.model}" if several_models and screen.model else "")


def _axis_samples(screen: AxisScreening, name: str, players: Mapping[str, AudioPlayer]) -> AxisSamples:
    neighbors = [*screen.closest, *screen.distant]
    decimals = formatting.distance_decimals(item.distance for item in neighbors)
    return AxisSamples(
        name=name,
        facts=_screening_facts(screen),
        closest=tuple(_sample_row(item, decimals, players) for item in screen.closest),
        distant=tuple(_sample_row(item, decimals, players) for item in screen.distant),
        marks=tuple(_label_medians(screen)),
    )


def _screening_facts(screen: AxisScreening) -> str:
    median = formatting.decimal(screen.distances.median, formatting.distance_decimals(dict(screen.distances).values()))
    parts = (
        f"encoder {screen.encoder}",
        f"{formatting.count(screen.n_pool, 'sample')} in the pool",
        f"{formatting.count(screen.n_harm, 'harmful item')} as reference",
        f"score: {screen.score}",
        "centered" if screen.centered else "not centered",
        f"{len(screen.quarantined)} in quarantine",
        f"median distance {median}",
    )
    return formatting.capitalize_first("; ".join(parts) + ".")


def _sample_row(neighbor: NeighborPair, decimals: int, players: Mapping[str, AudioPlayer]) -> SampleRow:
    other_distances = (("centered", neighbor.distance_centered), ("second", neighbor.second_distance))
    return SampleRow(
        rank=neighbor.rank,
        id=neighbor.id,
        text=neighbor.text or "",
        speaker=neighbor.speaker or "",
        distance=formatting.decimal(neighbor.distance, decimals),
        further=tuple(
            f"{name} {formatting.decimal(value, decimals)}" for name, value in other_distances if value is not None
        ),
        nearest_id=neighbor.nearest_id or "",
        nearest_text=neighbor.nearest_text or "",
        player=players.get(neighbor.id),
        nearest_player=players.get(neighbor.nearest_id or ""),
    )


def _label_medians(screen: AxisScreening) -> Iterable[LabelMedianMark]:
    """Medians by label, smallest first, on one scale an axis."""
    values = [label_median.median for group in screen.by_label.values() for label_median in group.values()]
    if not values:
        return
    lowest, highest = min(values), max(values)
    x = LinearScale((lowest, highest) if highest > lowest else (lowest - 1, lowest + 1), (4.0, 96.0))
    decimals = formatting.distance_decimals(values)
    reference = screen.distances.median
    in_range = lowest <= reference <= highest
    for label, group in screen.by_label.items():
        for value, label_median in sorted(group.items(), key=lambda pair: pair[1].median):
            picture = interval_strip(
                label_median.median, None, None, x, "base", reference=reference if in_range else None
            )
            n = f"{label_median.n:,}"
            yield LabelMedianMark(label, value, n, formatting.decimal(label_median.median, min(decimals, 4)), picture)


def _heatmaps(agreement: AxisAgreementRecord) -> Iterable[AgreementHeatmap]:
    captioned_matrices = (
        ("Rank correlation of distances (Spearman)", agreement.spearman),
        ("Overlap of the closest samples (share)", agreement.overlap_closest),
    )
    names = tuple(agreement.axes)
    for caption, matrix in captioned_matrices:
        if names:
            rows = tuple(
                (name, tuple(_heatmap_cell(value) for value in row)) for name, row in zip(names, matrix, strict=True)
            )
            yield AgreementHeatmap(caption, names, rows)


def _heatmap_cell(value: float | None) -> tuple[str, float, str]:
    if value is None:
        return formatting.MISSING, 0.0, ""
    return formatting.decimal(value, 2), round(min(abs(value), 1.0), 3), "below" if value < 0 else "above"
