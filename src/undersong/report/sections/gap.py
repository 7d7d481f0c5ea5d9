"""Where in the network the refusal went: the gap by layer, before and after; and whether the encoder changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.report import words
from undersong.report.inside import EncoderFacts, LateChange, Mechanism
from undersong.report.layers import Curve, Level, curves, mean
from undersong.report.panels import Group, Panel, Table, number, trained
from undersong.report.schema import Results
from undersong.report.sections import suppressed
from undersong.report.summary import Arm, arms, interval_over_runs, rate_name
from undersong.report.svg import Frame, kind_class, ticks

HEIGHT = 216


@dataclass(frozen=True, slots=True)
class Gap:
    """Gaps by layer, drawn and as numbers.  `encoder_ok`: False only where the encoder was found changed."""

    encoder: str  # one sentence
    encoder_ok: bool
    contrast: str  # one sentence, or empty
    notes: tuple[str, ...]
    groups: tuple[Group, ...]
    layers: Table
    tables: tuple[Table, ...]  # of the last quarter of layers: by arm, and what it says over runs


def build(results: Results) -> Gap | None:
    """None where the study asks for no mechanism."""
    mechanism = results.mechanism
    if mechanism is None:
        return None
    every = arms(results)
    found = curves(mechanism.curves, every)
    said, fine = _encoder(mechanism.encoder)
    return Gap(
        encoder=said,
        encoder_ok=fine,
        contrast=_contrast(mechanism),
        notes=tuple(note for note in (*mechanism.contrast.unmatched, mechanism.contrast.note, mechanism.note) if note),
        groups=tuple(_groups(found)),
        layers=_layers(found),
        tables=tuple(
            table
            for table in (_late(mechanism.late, every), *suppressed.build(mechanism, rate_name(results)))
            if table.rows
        ),
    )


def _groups(found: Sequence[Curve]) -> Iterable[Group]:
    ends = [
        end for curve in found for level in curve.levels for end in (level.gap, level.low, level.high, level.before)
    ]
    ends += [gap for curve in found for run in curve.runs for _, gap in run]
    known = [end for end in ends if end is not None]
    span = (min(0.0, *known), max(0.0, *known)) if known else (0.0, 1.0)
    span = span if span[1] > span[0] else (0.0, 1.0)
    places = list(dict.fromkeys(curve.place for curve in found))
    differs = [len({place[i] for place in places}) > 1 for i in range(3)]
    for place in places:
        title = ", ".join(part for part, wanted in zip(place, differs, strict=True) if wanted and part)
        panels: dict[tuple[str | None, str], list[Curve]] = {}
        for curve in found:
            if curve.place == place:
                panels.setdefault((curve.train_modality, curve.modality), []).append(curve)
        yield Group(title, tuple(_panel(members, span) for members in panels.values()))


def _panel(found: Sequence[Curve], span: tuple[float, float]) -> Panel:
    title = f"{trained(found[0].train_modality)} · {words.spoken(found[0].modality)} prompts"
    layers = sorted({level.layer for curve in found for level in curve.levels})
    frame = Frame.of((layers[0], layers[-1]), span, HEIGHT, inset=3)
    at: Sequence[float] = layers if len(layers) <= 8 else ticks(layers[0], layers[-1], 6)
    marks = [
        frame.grid((value, words.decimal(value, words.places(ticks(*span, 4)))) for value in ticks(*span, 4)),
        frame.foot([(layer, f"{layer:g}") for layer in at], "layer of the language model"),
    ]
    labels: list[tuple[float, str, str]] = []
    before = [(float(level.layer), level.before) for level in found[0].levels if level.before is not None]
    if before:
        marks.append(frame.path(before, "mean k-base dashed"))
        labels.append((before[-1][1], f"before {words.decimal(before[-1][1], 2)}", "k-base"))
    marks += [_band(frame, curve) for curve in found]
    for curve in found:
        marks.append(_line(frame, curve))
        end = curve.levels[-1].gap
        labels.append((end, f"{curve.kind} {words.decimal(end, 2)}", kind_class(curve.kind)))
    about = f"{title}: refusal gap by layer. At layer {layers[-1]}: {'; '.join(text for _, text, _ in labels)}."
    return Panel(title, frame.draw([*marks, frame.right_labels(labels)], about))


def _band(frame: Frame, curve: Curve) -> Markup:
    ends = [(float(level.layer), level.low, level.high) for level in curve.levels]
    known = [(x, low, high) for x, low, high in ends if low is not None and high is not None]
    return frame.band(known, f"band {kind_class(curve.kind)}") if len(known) > 1 else Markup("")


def _line(frame: Frame, curve: Curve) -> Markup:
    style = kind_class(curve.kind)
    marks = [frame.path(run, f"run {style}") for run in curve.runs]
    marks.append(frame.path([(level.layer, level.gap) for level in curve.levels], f"mean {style}"))
    if len(curve.levels) <= 12:
        marks += [frame.dot(level.layer, level.gap, curve.kind, _about(curve, level)) for level in curve.levels]
    return Markup("").join(marks)


def _about(curve: Curve, level: Level) -> str:
    interval = f" [{words.decimal(level.low, 2)}, {words.decimal(level.high, 2)}]" if level.low is not None else ""
    return f"{curve.label}, layer {level.layer}: gap {words.decimal(level.gap, 2)}{interval}"


def _encoder(facts: EncoderFacts | None) -> tuple[str, bool]:
    """What was found about the frozen encoder, and whether it stayed as it was."""
    if facts is None:
        return "Whether the audio encoder stayed unchanged was not measured.", True
    named = (("parameters", facts.parameters_equal), ("buffers", facts.buffers_equal))
    equal = [name for name, same in named if same is True]
    changed = [name for name, same in named if same is False]
    difference = facts.output_max_abs_difference
    moved = difference is not None and difference > 0
    said = []
    if equal:
        said.append(f"its {words.listed(equal)} are equal before and after")
    if changed:
        said.append(f"its {words.listed(changed)} changed")
    if difference is not None:
        said.append(f"the largest difference in its output is {difference:.3g}")
    if facts.input_max_abs_difference is not None:
        said.append(f"that in what goes into the language model {facts.input_max_abs_difference:.3g}")
        moved = moved or facts.input_max_abs_difference > 0
    if not said:
        return "Whether the audio encoder stayed unchanged was not measured.", True
    verdict = "The audio encoder did change" if changed or moved else "The audio encoder did not change"
    return f"{verdict}: {words.listed(said)}.", not (changed or moved)


def _contrast(mechanism: Mechanism) -> str:
    c = mechanism.contrast
    text = "The refusal direction is the difference in means"
    if c.harm_n is not None and c.benign_n is not None:
        text += f" of {c.harm_n} harmful and {c.benign_n} benign prompts"
    if c.held_out_harm_n is not None and c.held_out_benign_n is not None:
        text += f"; gaps are measured on {c.held_out_harm_n} held-out harmful and {c.held_out_benign_n} benign ones"
    return f"{text}."


def _layers(found: Sequence[Curve]) -> Table:
    head = (
        "Arm",
        "Prompts",
        "Layer",
        "runs",
        "before",
        "after [95 %]",
        "cosine to refit",
        "drift",
        "CKA",
        "harm told",
    )
    rows = tuple(
        (
            _named(curve), words.spoken(curve.modality), str(level.layer), str(level.runs), number(level.before),
            number(level.gap, level.low, level.high), number(level.cosine), number(level.drift),
            number(level.cka), words.percent(level.recognised),
        )
        for curve in found
        for level in curve.levels
    )  # fmt: skip
    return Table("Refusal gap by arm and layer", head, rows, names=2)


def _named(curve: Curve) -> str:
    return f"{curve.label}, {curve.model}" if curve.model else curve.label


def _late(changes: Sequence[LateChange], every: Sequence[Arm]) -> Table:
    """The mean change over the last quarter of layers, one row an arm and modality."""
    known = {arm.name: arm for arm in every}
    many = len({change.model for change in changes}) > 1
    members: dict[tuple[str, str | None, str], list[LateChange]] = {}
    for change in changes:
        if change.arm != "base" and change.gap_change is not None:
            members.setdefault((change.arm, change.model, change.modality), []).append(change)
    rows = []
    for (name, model, modality), chosen in members.items():
        values = [change.gap_change for change in chosen if change.gap_change is not None]
        low, high = interval_over_runs(values) or (chosen[0].low, chosen[0].high)
        label = known[name].short if name in known else name
        label = f"{label}, {model}" if many and model else label
        rows.append(
            (label, words.spoken(modality), str(len(values)), words.decimal(mean(values)), _interval(low, high))
        )
    head = ("Arm", "Prompts", "Runs", "change of the gap", "95 % interval")
    return Table("Change of the refusal gap in the last quarter of layers, after − before", head, tuple(rows), names=2)


def _interval(low: float | None, high: float | None) -> str:
    return f"[{words.decimal(low)}, {words.decimal(high)}]" if low is not None and high is not None else words.NONE
