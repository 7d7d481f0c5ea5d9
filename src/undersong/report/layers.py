"""Refusal gaps by layer, gathered into one curve an arm.  Knows nothing of how they are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.report.inside import LayerPoint
from undersong.report.summary import Arm, interval_over_runs


@dataclass(frozen=True, slots=True)
class Level:
    """An arm at one layer: means over its runs; the interval is over runs, or the one run's own."""

    layer: int
    gap: float
    low: float | None
    high: float | None
    before: float | None
    cosine: float | None
    drift: float | None  # of the states, relative
    cka: float | None
    recognised: float | None
    runs: int


@dataclass(frozen=True, slots=True)
class Curve:
    """An arm at its last step on prompts of one modality; `runs`: the (layer, gap) points of every run."""

    name: str
    arm: Arm | None  # None: the runs do not hold this arm
    model: str | None
    modality: str
    levels: tuple[Level, ...]
    runs: tuple[tuple[tuple[float, float], ...], ...]

    @property
    def kind(self) -> str:
        """The arm's kind of selection; `after` where the runs do not hold the arm."""
        return self.arm.kind if self.arm else "after"

    @property
    def label(self) -> str:
        """The arm's label without what all arms share; its name where the runs do not hold it."""
        return self.arm.short if self.arm else self.name

    @property
    def train_modality(self) -> str | None:
        """audio | text; of an arm that the runs do not hold its name, which keeps its panel its own."""
        return self.arm.train_modality if self.arm else self.name

    @property
    def place(self) -> tuple[str, str, str]:
        """(model, axis, amount): the group of panels it belongs to."""
        axis, amount = (self.arm.axis, self.arm.amount) if self.arm else (None, "")
        return f"model {self.model}" if self.model else "", f"{axis} axis" if axis else "", amount


def curves(points: Sequence[LayerPoint], arms: Sequence[Arm]) -> list[Curve]:
    """In the order of `arms`; an arm that is not among them comes last.  The base is every curve's `before`."""
    known = {arm.name: arm for arm in arms}
    order = list(known)
    last: dict[str, int] = {}
    for point in points:
        last[point.arm] = max(last.get(point.arm, point.step), point.step)
    members: dict[tuple[str, str | None, str], list[LayerPoint]] = {}
    for point in points:
        if point.arm != "base" and point.step == last[point.arm] and point.gap is not None:
            members.setdefault((point.arm, point.model, point.modality), []).append(point)
    found = [
        Curve(name, known.get(name), model, modality, _levels(chosen), _runs(chosen))
        for (name, model, modality), chosen in members.items()
    ]
    return sorted(found, key=lambda c: (order.index(c.name) if c.name in known else len(order), c.modality))


def _levels(points: Sequence[LayerPoint]) -> tuple[Level, ...]:
    layers: dict[int, list[LayerPoint]] = {}
    for point in points:
        layers.setdefault(point.layer, []).append(point)
    return tuple(_level(layer, layers[layer]) for layer in sorted(layers))


def _level(layer: int, points: Sequence[LayerPoint]) -> Level:
    gaps = [point.gap for point in points if point.gap is not None]
    low, high = interval_over_runs(gaps) or (points[0].gap_low, points[0].gap_high)
    return Level(
        layer=layer,
        gap=float(np.mean(gaps)),
        low=low,
        high=high,
        before=mean(point.gap_before for point in points),
        cosine=mean(point.cosine_to_refit for point in points),
        drift=mean(point.drift for point in points),
        cka=mean(point.cka for point in points),
        recognised=mean(point.recognised for point in points),
        runs=len(gaps),
    )


def _runs(points: Sequence[LayerPoint]) -> tuple[tuple[tuple[float, float], ...], ...]:
    by_seed: dict[str, list[tuple[float, float]]] = {}
    for point in sorted(points, key=lambda point: point.layer):
        by_seed.setdefault(str(point.seed), []).append((float(point.layer), point.gap or 0.0))
    return tuple(tuple(line) for line in by_seed.values()) if len(by_seed) > 1 else ()


def mean(values: Iterable[float | None]) -> float | None:
    """Over what was measured; None where nothing was."""
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None
