"""Audio-trained against text-trained runs, paired by selection, base, draw, seed and step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.svg import PlotFrame, kind_class, percent_axis, tag
from undersong.pages.tables import NumberCell, Panel, PanelGroup, Table, number_cell, percent_cell
from undersong.report.summary import Facet, VerdictFilter, default_verdict_filter, estimate_rate, facets, kind_order
from undersong.results.schema import Results
from undersong.statistics.runs import paired_runs

HEIGHT = 216


@dataclass(frozen=True, slots=True)
class ModalityPair:
    """Two runs on the same selection at the last step both reached: the rate after audio and after text, as shares."""

    kind: str
    draw: int
    seed: int
    step: int
    audio: float
    text: float


class ModalityPairKey(NamedTuple):
    """Key of a pair of runs, one trained on audio and one on text: the properties that both share."""

    kind: str
    draw: int
    seed: int
    step: int
    selection_hash: str | None


@dataclass(frozen=True, slots=True)
class ModalityComparison:
    """Panels by facet and prompt modality. `numbers` holds the paired difference by selection kind."""

    rate: str
    groups: tuple[PanelGroup, ...]
    numbers: Table
    drawn: Table  # every pair of runs
    unpaired: int  # runs left out, for want of a run on the same selection in the other modality


def build_modality_comparison(results: Results) -> ModalityComparison | None:
    """Build the comparison of training on audio and on text; None if no two runs form a pair."""
    verdict_filter = default_verdict_filter(results)
    if verdict_filter is None:
        return None
    facet_pairs = [
        (facet, modality, *_pair_runs(facet, verdict_filter, modality))
        for facet in facets(results)
        for modality in ("audio", "text")
    ]
    plotted_pairs = [(facet, modality, pairs) for facet, modality, pairs, _ in facet_pairs if pairs]
    if not plotted_pairs:
        return None
    top = percent_axis(max(max(pair.audio, pair.text) for _, _, pairs in plotted_pairs for pair in pairs))[0]
    groups: dict[str, list[Panel]] = {}
    for facet, modality, pairs in plotted_pairs:
        title = f"{formatting.modality_label(modality).capitalize()} prompts"
        groups.setdefault(facet.title, []).append(
            Panel(title, _pair_plot(facet, verdict_filter, modality, pairs, top, title))
        )
    rows = tuple(row for facet, modality, pairs in plotted_pairs for row in _difference_rows(facet, modality, pairs))
    head = ("Selection", "Prompts", "pairs", "audio, %", "text, %", "audio − text, points [95 %]")
    pair_rows = tuple(row for facet, modality, pairs in plotted_pairs for row in _pair_rows(facet, modality, pairs))
    pair_headings = ("Selection", "Prompts", "draw", "seed", "step", "audio, %", "text, %")
    return ModalityComparison(
        rate=verdict_filter.rate_label,
        groups=tuple(PanelGroup(title, tuple(panels)) for title, panels in groups.items()),
        numbers=Table(f"{verdict_filter.rate_label} after training on audio and on text", head, rows, names=2),
        drawn=Table(f"{verdict_filter.rate_label} of each pair of runs", pair_headings, pair_rows, names=2),
        unpaired=sum(unpaired for _, _, _, unpaired in facet_pairs),
    )


def _pair_runs(facet: Facet, verdict_filter: VerdictFilter, modality: str) -> tuple[list[ModalityPair], int]:
    """Pairs of the last step both modalities reached, and how many of its runs found no partner."""
    rates: dict[str | None, dict[ModalityPairKey, float]] = {"audio": {}, "text": {}}
    for arm in facet.arms:
        for cell in verdict_filter.run_rates(arm.runs, modality) if arm.train_modality in rates else ():
            run = cell.run
            key = ModalityPairKey(arm.kind, run.draw or 0, run.seed or 0, run.step, run.selection_hash)
            rates[arm.train_modality][key] = cell.rate
    last_step = max({key.step for key in rates["audio"]} & {key.step for key in rates["text"]}, default=None)
    audio, text = (
        {key: rate for key, rate in rates[train_modality].items() if key.step == last_step}
        for train_modality in ("audio", "text")
    )
    pairs = [
        ModalityPair(key.kind, key.draw, key.seed, key.step, rate, text[key])
        for key, rate in audio.items()
        if key in text
    ]
    return sorted(pairs, key=lambda pair: kind_order(pair.kind)), len(audio.keys() ^ text.keys())


def _pairs_by_kind(pairs: Sequence[ModalityPair]) -> dict[str, list[ModalityPair]]:
    kinds: dict[str, list[ModalityPair]] = {}
    for pair in pairs:
        kinds.setdefault(pair.kind, []).append(pair)
    return kinds


def _pair_plot(
    facet: Facet, verdict_filter: VerdictFilter, modality: str, pairs: Sequence[ModalityPair], top: float, title: str
) -> Markup:
    kinds = _pairs_by_kind(pairs)
    frame = PlotFrame.from_domains((-0.5, len(kinds) - 0.5), (0.0, top), HEIGHT)
    marks = [frame.grid(percent_axis(top)[1])]
    base = estimate_rate(verdict_filter.run_rates(facet.base_runs, modality))
    if base is not None:
        marks.append(frame.reference_line(base.mean, "k-base", base.low, base.high))
        marks.append(frame.right_labels([(base.mean, f"base {formatting.percent_number(base.mean)}", "k-base")]))
    x_ticks, kind_summaries = [], []
    for i, (kind, members) in enumerate(kinds.items()):
        left, right = i - 0.22, i + 0.22
        x_ticks += [(left, "audio"), (right, "text")]
        for pair in members:
            description = (
                f"{kind}, seed {pair.seed}: audio {formatting.percent(pair.audio)}, text "
                f"{formatting.percent(pair.text)}"
            )
            marks.append(frame.polyline([(left, pair.audio), (right, pair.text)], f"pair {kind_class(kind)}"))
            marks.append(frame.dot(left, pair.audio, kind, description))
            marks.append(frame.dot(right, pair.text, kind, description, "hollow"))
        marks.append(tag("text", kind, x=f"{frame.x(i):.2f}%", y=HEIGHT + 38, class_=f"name mid {kind_class(kind)}"))
        audio, text = (sum(rates) / len(members) for rates in ([p.audio for p in members], [p.text for p in members]))
        kind_summaries.append(f"{kind}: audio {formatting.percent(audio)}, text {formatting.percent(text)}")
    description = (
        f"{title}: {verdict_filter.rate_label} of audio-trained and text-trained runs. {'; '.join(kind_summaries)}."
    )
    return frame.draw([*marks, frame.x_axis(x_ticks)], description)


def _difference_rows(
    facet: Facet, modality: str, pairs: Sequence[ModalityPair]
) -> Iterable[tuple[str | NumberCell, ...]]:
    for kind, members in _pairs_by_kind(pairs).items():
        audio = {(0, pair.draw, pair.seed): pair.audio for pair in members}
        text = {(0, pair.draw, pair.seed): pair.text for pair in members}
        difference = paired_runs(text, audio, limits=(-1.0, 1.0))
        audio_mean, text_mean = (sum(rates.values()) / len(members) for rates in (audio, text))
        ends = (None if end is None else 100 * end for end in (difference.difference, difference.low, difference.high))
        difference_text = " ".join(
            filter(
                None, (formatting.points(difference.difference), formatting.bracket(difference.low, difference.high))
            )
        )
        yield (
            _selection_label(kind, facet),
            formatting.modality_label(modality),
            str(len(members)),
            percent_cell(audio_mean),
            percent_cell(text_mean),
            NumberCell(difference_text, *ends),
        )


def _pair_rows(facet: Facet, modality: str, pairs: Sequence[ModalityPair]) -> Iterable[tuple[str | NumberCell, ...]]:
    for pair in pairs:
        condition_cells = (number_cell(value, decimals=0) for value in (pair.draw, pair.seed, pair.step))
        yield (
            _selection_label(pair.kind, facet),
            formatting.modality_label(modality),
            *condition_cells,
            percent_cell(pair.audio),
            percent_cell(pair.text),
        )


def _selection_label(kind: str, facet: Facet) -> str:
    return f"{kind}, {facet.title}" if facet.title else kind
