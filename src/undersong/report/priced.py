"""Defenses and their prices in results.json as the report reads them."""

from __future__ import annotations

from undersong.report.record import Many, Named, Number, Record


class Interval(Record):
    mean: Number = None
    low: Number = None
    high: Number = None


class Change(Record):
    difference: Number = None
    low: Number = None
    high: Number = None
    p: Number = None
    told: bool | None = None  # from run noise; older results do not say it


class Recommended(Record):
    family: str | None = None
    axis: str | None = None
    fraction: Number = None
    train_modality: str | None = None
    defense: str | None = None
    reason: str = ""


class Defense(Record):
    defense: str
    family: str | None = None
    fraction: Number = None
    axis: str | None = None
    train_modality: str | None = None
    step: int | None = None
    kind: str | None = None
    system: str | None = None
    runs: int | None = None
    jsr: Named[Interval | None] = {}
    over_refusal: Named[Named[Interval | None]] = {}
    utility: Named[Named[Interval | None]] = {}
    jsr_by_set: Named[Named[Interval | None]] = {}
    against: Named[Change] = {}
    again: Named[Interval | None] = {}
    changes: Many[str] = []
    metric: str = "jsr"
    kept: Interval | None = None
    cost: Number = None
    safe: bool | None = None
    note: str | None = None
