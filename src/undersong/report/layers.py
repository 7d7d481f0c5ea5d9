"""Refusal gaps by layer, gathered into one curve an arm.  Knows nothing of how they are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.report.summary import ArmSummary, interval_over_runs
from undersong.results.schema_mechanism import LayerMeasurement


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
    """In the order of `arms`; an arm that is not among them comes last.  The base is every curve's `before`."""
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
        harm_accuracy=mean_measured(point.recognised for point in points),
        runs=len(gaps),
    )


def _run_lines(points: Sequence[LayerMeasurement]) -> tuple[tuple[tuple[float, float], ...], ...]:
    by_seed: dict[str, list[tuple[float, float]]] = {}
    for point in sorted(points, key=lambda point: point.layer):
        by_seed.setdefault(str(point.seed), []).append((float(point.layer), point.gap or 0.0))
    return tuple(tuple(line) for line in by_seed.values()) if len(by_seed) > 1 else ()


def mean_measured(values: Iterable[float | None]) -> float | None:
    """Over what was measured; None where nothing was."""
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None
