"""Audio-trained against text-trained runs, paired: the same selection, base, draw, seed and step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from undersong.report import words
from undersong.report.panels import Group, Panel, Table, Value, number, share
from undersong.report.schema import Results
from undersong.report.summary import Facet, View, estimate, facets, kind_order, view
from undersong.report.svg import Frame, kind_class, percent_axis, tag
from undersong.statistics import paired_runs

HEIGHT = 216


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs on the same selection at the last step both reached: the rate after audio and after text, as shares."""

    kind: str
    draw: int
    seed: int
    step: int
    audio: float
    text: float


class Key(NamedTuple):
    """What the two runs of a pair share."""

    kind: str
    draw: int
    seed: int
    step: int
    selection_hash: str | None


@dataclass(frozen=True, slots=True)
class Modality:
    """A panel a facet and prompt modality; `numbers`: the paired difference by kind of selection."""

    rate: str
    groups: tuple[Group, ...]
    numbers: Table
    drawn: Table  # every pair of runs
    unpaired: int  # runs left out, for want of a run on the same selection in the other modality


def build(results: Results) -> Modality | None:
    """None where no two runs pair."""
    shown = view(results)
    if shown is None:
        return None
    found = [
        (facet, modality, *_pairs(facet, shown, modality))
        for facet in facets(results)
        for modality in ("audio", "text")
    ]
    drawn = [(facet, modality, pairs) for facet, modality, pairs, _ in found if pairs]
    if not drawn:
        return None
    top = percent_axis(max(max(pair.audio, pair.text) for _, _, pairs in drawn for pair in pairs))[0]
    groups: dict[str, list[Panel]] = {}
    for facet, modality, pairs in drawn:
        title = f"{words.spoken(modality).capitalize()} prompts"
        groups.setdefault(facet.title, []).append(Panel(title, _plot(facet, shown, modality, pairs, top, title)))
    rows = tuple(row for facet, modality, pairs in drawn for row in _numbers(facet, modality, pairs))
    head = ("Selection", "Prompts", "pairs", "audio, %", "text, %", "audio − text, points [95 %]")
    of_pairs = tuple(row for facet, modality, pairs in drawn for row in _each(facet, modality, pairs))
    places = ("Selection", "Prompts", "draw", "seed", "step", "audio, %", "text, %")
    return Modality(
        rate=shown.rate,
        groups=tuple(Group(title, tuple(panels)) for title, panels in groups.items()),
        numbers=Table(f"{shown.rate} after training on audio and on text", head, rows, names=2),
        drawn=Table(f"{shown.rate} of each pair of runs", places, of_pairs, names=2),
        unpaired=sum(left for _, _, _, left in found),
    )


def _pairs(facet: Facet, shown: View, modality: str) -> tuple[list[Pair], int]:
    """Pairs of the last step both modalities reached, and how many of its runs found no partner."""
    rates: dict[str | None, dict[Key, float]] = {"audio": {}, "text": {}}
    for arm in facet.arms:
        for cell in shown.cells(arm.runs, modality) if arm.train_modality in rates else ():
            run = cell.run
            key = Key(arm.kind, run.draw or 0, run.seed or 0, run.step, run.selection_hash)
            rates[arm.train_modality][key] = cell.rate
    last = max({key.step for key in rates["audio"]} & {key.step for key in rates["text"]}, default=None)
    audio, text = ({key: rate for key, rate in rates[side].items() if key.step == last} for side in ("audio", "text"))
    pairs = [
        Pair(key.kind, key.draw, key.seed, key.step, rate, text[key]) for key, rate in audio.items() if key in text
    ]
    return sorted(pairs, key=lambda pair: kind_order(pair.kind)), len(audio.keys() ^ text.keys())


def _by_kind(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    kinds: dict[str, list[Pair]] = {}
    for pair in pairs:
        kinds.setdefault(pair.kind, []).append(pair)
    return kinds


def _plot(facet: Facet, shown: View, modality: str, pairs: Sequence[Pair], top: float, title: str) -> Markup:
    kinds = _by_kind(pairs)
    frame = Frame.of((-0.5, len(kinds) - 0.5), (0.0, top), HEIGHT)
    marks = [frame.grid(percent_axis(top)[1])]
    base = estimate(shown.cells(facet.bases, modality))
    if base is not None:
        marks.append(frame.level(base.mean, "k-base", base.low, base.high))
        marks.append(frame.right_labels([(base.mean, f"base {words.bare(base.mean)}", "k-base")]))
    at, said = [], []
    for i, (kind, members) in enumerate(kinds.items()):
        left, right = i - 0.22, i + 0.22
        at += [(left, "audio"), (right, "text")]
        for pair in members:
            about = f"{kind}, seed {pair.seed}: audio {words.percent(pair.audio)}, text {words.percent(pair.text)}"
            marks.append(frame.path([(left, pair.audio), (right, pair.text)], f"pair {kind_class(kind)}"))
            marks.append(frame.dot(left, pair.audio, kind, about))
            marks.append(frame.dot(right, pair.text, kind, about, "hollow"))
        marks.append(tag("text", kind, x=f"{frame.x(i):.2f}%", y=HEIGHT + 38, class_=f"name mid {kind_class(kind)}"))
        audio, text = (sum(side) / len(members) for side in ([p.audio for p in members], [p.text for p in members]))
        said.append(f"{kind}: audio {words.percent(audio)}, text {words.percent(text)}")
    about = f"{title}: {shown.rate} of audio-trained and text-trained runs. {'; '.join(said)}."
    return frame.draw([*marks, frame.foot(at)], about)


def _numbers(facet: Facet, modality: str, pairs: Sequence[Pair]) -> Iterable[tuple[str | Value, ...]]:
    for kind, members in _by_kind(pairs).items():
        audio = {(0, pair.draw, pair.seed): pair.audio for pair in members}
        text = {(0, pair.draw, pair.seed): pair.text for pair in members}
        gap = paired_runs(text, audio, limits=(-1.0, 1.0))
        a, t = (sum(side.values()) / len(members) for side in (audio, text))
        ends = (None if end is None else 100 * end for end in (gap.difference, gap.low, gap.high))
        text_of = " ".join(filter(None, (words.points(gap.difference), words.bracket(gap.low, gap.high))))
        yield (
            _named(kind, facet), words.spoken(modality), str(len(members)), share(a), share(t), Value(text_of, *ends),
        )  # fmt: skip


def _each(facet: Facet, modality: str, pairs: Sequence[Pair]) -> Iterable[tuple[str | Value, ...]]:
    for pair in pairs:
        place = (number(value, places=0) for value in (pair.draw, pair.seed, pair.step))
        yield _named(pair.kind, facet), words.spoken(modality), *place, share(pair.audio), share(pair.text)


def _named(kind: str, facet: Facet) -> str:
    return f"{kind}, {facet.title}" if facet.title else kind
