"""How far runs differ and what goes along with it, as the report reads it.  Rates are shares."""

from __future__ import annotations

from undersong.report.beforehand import Spread
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


class Predictor(Record):
    """One axis: `slope` alone and `joint` with the others, in JSR per standard deviation of nearness."""

    name: str
    rank: Spread = Spread()
    slope: Spread = Spread()
    joint: Spread | None = None
    inflation: Number = None
    dominant: Number = None  # share of draws in which its slope is the largest


class Predicts(Record):
    """How JSR rise goes along with nearness, over `points` selections of one base."""

    model: str | None = None
    train_modality: str | None = None
    set: str | None = None
    modality: str | None = None
    points: int | None = None
    replicates: int | None = None
    predictors: Many[Predictor] = []
    note: str | None = None
