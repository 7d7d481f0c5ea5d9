"""The refusal gap by layer before and after fine-tuning, and the check that the audio encoder did not change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.svg import PlotFrame, kind_class, ticks
from undersong.pages.tables import Panel, PanelGroup, Table, number_cell, training_label
from undersong.report.summary import ArmSummary, arm_summaries, interval_over_runs, rate_name
from undersong.research.report import mechanism_tests
from undersong.results.schema import Results
from undersong.results.schema_mechanism import FrozenEncoderCheck, LateGapChange, LayerMeasurement, MechanismRecord


@dataclass(frozen=True, slots=True)
class ArmLayer:
    """An arm at one layer: means over its runs; the interval is over runs, or the one run's own."""

    layer: int
    gap: float
    low: float | None
    high: float | None
    gap_before: float | None
    cosine_to_refit: float | None
    drift: float | None  # of the states, relative
    cka: float | None
    harm_accuracy: float | None
    runs: int


@dataclass(frozen=True, slots=True)
class ArmGapCurve:
    """An arm at its last step on prompts of one modality; `runs`: the (layer, gap) points of every run."""

    name: str
    arm: ArmSummary | None  # None: the runs do not hold this arm
    model: str | None
    modality: str
    layers: tuple[ArmLayer, ...]
    run_lines: tuple[tuple[tuple[float, float], ...], ...]

    @property
    def kind(self) -> str:
        """The arm's kind of selection; `after` where the runs do not hold the arm."""
        return self.arm.kind if self.arm else "after"

    @property
    def label(self) -> str:
        """The arm's label without what all arms share; its name where the runs do not hold it."""
        return self.arm.short_label if self.arm else self.name

    @property
    def train_modality(self) -> str | None:
        """audio | text; of an arm that the runs do not hold its name, which keeps its panel its own."""
        return self.arm.train_modality if self.arm else self.name

    @property
    def panel_group(self) -> tuple[str, str, str]:
        """(model, axis, amount): the group of panels it belongs to."""
        axis, amount = (self.arm.axis, self.arm.amount) if self.arm else (None, "")
        return f"model {self.model}" if self.model else "", f"{axis} axis" if axis else "", amount


def arm_gap_curves(points: Sequence[LayerMeasurement], arms: Sequence[ArmSummary]) -> list[ArmGapCurve]:
    """Return the gap curves of every arm at its last step, in the order of `arms`, with unlisted arms last.

    The base is the `before` of each curve.
    """
    arms_by_name = {arm.name: arm for arm in arms}
    order = list(arms_by_name)
    last_step: dict[str, int] = {}
    for point in points:
        last_step[point.arm] = max(last_step.get(point.arm, point.step), point.step)
    points_by_curve: dict[tuple[str, str | None, str], list[LayerMeasurement]] = {}
    for point in points:
        if point.arm != "base" and point.step == last_step[point.arm] and point.gap is not None:
            points_by_curve.setdefault((point.arm, point.model, point.modality), []).append(point)
    gap_curves = [
        ArmGapCurve(name, arms_by_name.get(name), model, modality, _arm_layers(arm_points), _run_lines(arm_points))
        for (name, model, modality), arm_points in points_by_curve.items()
    ]
    return sorted(
        gap_curves,
        key=lambda gap_curve: (
            order.index(gap_curve.name) if gap_curve.name in arms_by_name else len(order),
            gap_curve.modality,
        ),
    )


def _arm_layers(points: Sequence[LayerMeasurement]) -> tuple[ArmLayer, ...]:
    points_by_layer: dict[int, list[LayerMeasurement]] = {}
    for point in points:
        points_by_layer.setdefault(point.layer, []).append(point)
    return tuple(_arm_layer(layer, points_by_layer[layer]) for layer in sorted(points_by_layer))


def _arm_layer(layer: int, points: Sequence[LayerMeasurement]) -> ArmLayer:
    gaps = [point.gap for point in points if point.gap is not None]
    low, high = interval_over_runs(gaps) or (points[0].gap_low, points[0].gap_high)
    return ArmLayer(
        layer=layer,
        gap=float(np.mean(gaps)),
        low=low,
        high=high,
        gap_before=mean_measured(point.gap_before for point in points),
        cosine_to_refit=mean_measured(point.cosine_to_refit for point in points),
        drift=mean_measured(point.drift for point in points),
        cka=mean_measured(point.cka for point in points),
        harm_accuracy=mean_measured(point.harm_accuracy for point in points),
        runs=len(gaps),
    )


def _run_lines(points: Sequence[LayerMeasurement]) -> tuple[tuple[tuple[float, float], ...], ...]:
    by_seed: dict[str, list[tuple[float, float]]] = {}
    for point in sorted(points, key=lambda point: point.layer):
        by_seed.setdefault(str(point.seed), []).append((float(point.layer), point.gap or 0.0))
    return tuple(tuple(line) for line in by_seed.values()) if len(by_seed) > 1 else ()


def mean_measured(values: Iterable[float | None]) -> float | None:
    """Return the mean of the measured values; None if there are none."""
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None


HEIGHT = 216


@dataclass(frozen=True, slots=True)
class RefusalGapSection:
    """Refusal gaps by layer, as charts and numbers. `encoder_ok` is False only if the encoder was found changed."""

    encoder: str  # one sentence
    encoder_ok: bool
    contrast: str  # one sentence, or empty
    notes: tuple[str, ...]
    groups: tuple[PanelGroup, ...]
    layers: Table
    tables: tuple[Table, ...]  # of the last quarter of layers: by arm, and what it says over runs


def build_refusal_gap(results: Results) -> RefusalGapSection | None:
    """Build the section of the refusal gap by layer; None if the study has no mechanism analysis."""
    mechanism = results.mechanism
    if mechanism is None:
        return None
    arm_list = arm_summaries(results)
    gap_curves = arm_gap_curves(mechanism.layer_measurements, arm_list)
    encoder_sentence, encoder_unchanged = _encoder_finding(mechanism.encoder_unchanged)
    return RefusalGapSection(
        encoder=encoder_sentence,
        encoder_ok=encoder_unchanged,
        contrast=_contrast_sentence(mechanism),
        notes=tuple(
            note for note in (*mechanism.contrast_sets.mismatches, mechanism.contrast_sets.note, mechanism.note) if note
        ),
        groups=tuple(_panel_groups(gap_curves)),
        layers=_layer_table(gap_curves),
        tables=tuple(
            table
            for table in (
                _late_change_table(mechanism.late_gap_changes, arm_list),
                *mechanism_tests.build_mechanism_tables(mechanism, rate_name(results)),
            )
            if table.rows
        ),
    )


def _panel_groups(gap_curves: Sequence[ArmGapCurve]) -> Iterable[PanelGroup]:
    ends = [
        end
        for curve in gap_curves
        for level in curve.layers
        for end in (level.gap, level.low, level.high, level.gap_before)
    ]
    ends += [gap for curve in gap_curves for run in curve.run_lines for _, gap in run]
    measured_ends = [end for end in ends if end is not None]
    span = (min(0.0, *measured_ends), max(0.0, *measured_ends)) if measured_ends else (0.0, 1.0)
    span = span if span[1] > span[0] else (0.0, 1.0)
    panel_groups = list(dict.fromkeys(curve.panel_group for curve in gap_curves))
    varying = [len({panel_group[i] for panel_group in panel_groups}) > 1 for i in range(3)]
    for panel_group in panel_groups:
        title = ", ".join(part for part, is_varying in zip(panel_group, varying, strict=True) if is_varying and part)
        panels: dict[tuple[str | None, str], list[ArmGapCurve]] = {}
        for curve in gap_curves:
            if curve.panel_group == panel_group:
                panels.setdefault((curve.train_modality, curve.modality), []).append(curve)
        yield PanelGroup(title, tuple(_gap_panel(members, span) for members in panels.values()))


def _gap_panel(gap_curves: Sequence[ArmGapCurve], span: tuple[float, float]) -> Panel:
    title = (
        f"{training_label(gap_curves[0].train_modality)} · {formatting.modality_label(gap_curves[0].modality)} prompts"
    )
    layers = sorted({level.layer for curve in gap_curves for level in curve.layers})
    frame = PlotFrame.from_domains((layers[0], layers[-1]), span, HEIGHT, inset=3)
    x_ticks: Sequence[float] = layers if len(layers) <= 8 else ticks(layers[0], layers[-1], 6)
    marks = [
        frame.grid(
            (value, formatting.decimal(value, formatting.decimals_needed(ticks(*span, 4)))) for value in ticks(*span, 4)
        ),
        frame.x_axis([(layer, f"{layer:g}") for layer in x_ticks], "layer of the language model"),
    ]
    labels: list[tuple[float, str, str]] = []
    base_points = [
        (float(level.layer), level.gap_before) for level in gap_curves[0].layers if level.gap_before is not None
    ]
    if base_points:
        marks.append(frame.polyline(base_points, "mean k-base dashed"))
        labels.append((base_points[-1][1], f"before {formatting.decimal(base_points[-1][1], 2)}", "k-base"))
    marks += [_interval_band(frame, curve) for curve in gap_curves]
    for curve in gap_curves:
        marks.append(_curve_lines(frame, curve))
        end = curve.layers[-1].gap
        labels.append((end, f"{curve.kind} {formatting.decimal(end, 2)}", kind_class(curve.kind)))
    description = f"{title}: refusal gap by layer. At layer {layers[-1]}: {'; '.join(text for _, text, _ in labels)}."
    return Panel(title, frame.draw([*marks, frame.right_labels(labels)], description))


def _interval_band(frame: PlotFrame, curve: ArmGapCurve) -> Markup:
    ends = [(float(level.layer), level.low, level.high) for level in curve.layers]
    intervals = [(x, low, high) for x, low, high in ends if low is not None and high is not None]
    return frame.band(intervals, f"band {kind_class(curve.kind)}") if len(intervals) > 1 else Markup("")


def _curve_lines(frame: PlotFrame, curve: ArmGapCurve) -> Markup:
    style = kind_class(curve.kind)
    marks = [frame.polyline(run, f"run {style}") for run in curve.run_lines]
    marks.append(frame.polyline([(level.layer, level.gap) for level in curve.layers], f"mean {style}"))
    if len(curve.layers) <= 12:
        marks += [
            frame.dot(level.layer, level.gap, curve.kind, _layer_description(curve, level)) for level in curve.layers
        ]
    return Markup("").join(marks)


def _layer_description(curve: ArmGapCurve, level: ArmLayer) -> str:
    interval = (
        f" [{formatting.decimal(level.low, 2)}, {formatting.decimal(level.high, 2)}]" if level.low is not None else ""
    )
    return f"{curve.label}, layer {level.layer}: gap {formatting.decimal(level.gap, 2)}{interval}"


def _encoder_finding(check: FrozenEncoderCheck | None) -> tuple[str, bool]:
    """Return a sentence on the frozen encoder, and whether it is unchanged."""
    if check is None:
        return "Whether the audio encoder stayed unchanged was not measured.", True
    checks = (("parameters", check.parameters_equal), ("buffers", check.buffers_equal))
    equal = [name for name, is_equal in checks if is_equal is True]
    changed = [name for name, is_equal in checks if is_equal is False]
    difference = check.output_max_abs_difference
    moved = difference is not None and difference > 0
    phrases = []
    if equal:
        phrases.append(f"its {formatting.join_items(equal)} are equal before and after")
    if changed:
        phrases.append(f"its {formatting.join_items(changed)} changed")
    if difference is not None:
        phrases.append(f"the largest difference in its output is {difference:.3g}")
    if check.input_max_abs_difference is not None:
        phrases.append(f"that in what goes into the language model {check.input_max_abs_difference:.3g}")
        moved = moved or check.input_max_abs_difference > 0
    if not phrases:
        return "Whether the audio encoder stayed unchanged was not measured.", True
    verdict = "The audio encoder did change" if changed or moved else "The audio encoder did not change"
    return f"{verdict}: {formatting.join_items(phrases)}.", not (changed or moved)


def _contrast_sentence(mechanism: MechanismRecord) -> str:
    contrast = mechanism.contrast_sets
    return (
        f"The refusal direction is the difference in means of {contrast.n_harmful} harmful and {contrast.n_benign} "
        f"benign prompts; gaps are measured on {contrast.n_held_out_harmful} held-out harmful and "
        f"{contrast.n_held_out_benign} benign ones."
    )


def _layer_table(gap_curves: Sequence[ArmGapCurve]) -> Table:
    head = (
        "Arm",
        "Prompts",
        "Layer",
        "runs",
        "before",
        "after [95 %]",
        "cosine to refit",
        "drift",
        "CKA (debiased)",
        "harm recognized",
    )
    rows = tuple(
        (
            _curve_name(curve),
            formatting.modality_label(curve.modality),
            str(level.layer),
            str(level.runs),
            number_cell(level.gap_before),
            number_cell(level.gap, level.low, level.high),
            number_cell(level.cosine_to_refit),
            number_cell(level.drift),
            number_cell(level.cka),
            formatting.percent(level.harm_accuracy),
        )
        for curve in gap_curves
        for level in curve.layers
    )
    return Table("Refusal gap by arm and layer", head, rows, names=2)


def _curve_name(curve: ArmGapCurve) -> str:
    return f"{curve.label}, {curve.model}" if curve.model else curve.label


def _late_change_table(changes: Sequence[LateGapChange], arm_list: Sequence[ArmSummary]) -> Table:
    """The mean change over the last quarter of layers, one row an arm and modality."""
    arms_by_name = {arm.name: arm for arm in arm_list}
    several_models = len({change.model for change in changes}) > 1
    members: dict[tuple[str, str | None, str], list[LateGapChange]] = {}
    for change in changes:
        if change.arm != "base" and change.gap_change is not None:
            members.setdefault((change.arm, change.model, change.modality), []).append(change)
    rows = []
    for (name, model, modality), arm_changes in members.items():
        values = [change.gap_change for change in arm_changes if change.gap_change is not None]
        low, high = interval_over_runs(values) or (arm_changes[0].low, arm_changes[0].high)
        label = arms_by_name[name].short_label if name in arms_by_name else name
        label = f"{label}, {model}" if several_models and model else label
        rows.append(
            (
                label,
                formatting.modality_label(modality),
                str(len(values)),
                formatting.decimal(mean_measured(values)),
                _interval(low, high),
            )
        )
    head = ("Arm", "Prompts", "Runs", "change of the gap", "95 % interval")
    return Table("Change of the refusal gap in the last quarter of layers, after − before", head, tuple(rows), names=2)


def _interval(low: float | None, high: float | None) -> str:
    return (
        f"[{formatting.decimal(low)}, {formatting.decimal(high)}]"
        if low is not None and high is not None
        else formatting.MISSING
    )
