"""How far runs differ, as the report reads it: run noise, and where the spread comes from.  Rates are shares."""

from __future__ import annotations

from undersong.report.record import Many, Number, Record


class Noise(Record):
    """How far trainings on the same samples differ by their seed alone: `sd` of one run, `reach` of two."""

    model: str | None = None
    train_modality: str | None = None
    set: str | None = None
    modality: str | None = None
    groups: int = 0
    runs: int = 0
    df: int = 0
    sd: Number = None
    low: Number = None
    high: Number = None
    reach: Number = None
    note: str | None = None


class Component(Record):
    """What one source adds to a run's rate: `sd`, or None and why."""

    name: str
    groups: int = 0
    df: int = 0
    sd: Number = None
    low: Number = None
    high: Number = None
    share: Number = None
    note: str | None = None


class Variance(Record):
    """The spread of a study's runs, split.  `seed_by_prompts`: the part of the seed's that more prompts would lower."""

    train_modality: str | None = None
    set: str | None = None
    modality: str | None = None
    n: int = 0
    runs: int = 0
    parts: Many[Component] = []
    sd: Number = None
    seed_by_prompts: Number = None
    note: str | None = None
