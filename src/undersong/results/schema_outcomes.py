"""How far runs differ and what goes along with it, as the report reads it.  Rates are shares."""

from __future__ import annotations

from undersong.results.schema_base import ListField, OptionalFloat, Record
from undersong.results.schema_screening import ValueWithInterval


class RunNoiseRecord(Record):
    """How far trainings on the same samples differ by their seed alone: `sd` of one run, `reach` of two."""

    model: str | None = None
    train_modality: str | None = None
    set: str | None = None
    modality: str | None = None
    groups: int = 0
    runs: int = 0
    df: int = 0
    sd: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None
    reach: OptionalFloat = None
    note: str | None = None


class VarianceComponentRecord(Record):
    """What one source adds to a run's rate: `sd`, or None and why."""

    name: str
    groups: int = 0
    df: int = 0
    sd: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None
    share: OptionalFloat = None
    note: str | None = None


class VarianceRecord(Record):
    """The spread of a study's runs, split.  `seed_by_prompts`: the part of the seed's that more prompts would lower."""

    train_modality: str | None = None
    set: str | None = None
    modality: str | None = None
    n: int = 0
    runs: int = 0
    parts: ListField[VarianceComponentRecord] = []
    sd: OptionalFloat = None
    seed_by_prompts: OptionalFloat = None
    note: str | None = None


class PredictorRecord(Record):
    """One axis: `slope` alone and `joint` with the others, in JSR per standard deviation of nearness."""

    name: str
    rank: ValueWithInterval = ValueWithInterval()
    slope: ValueWithInterval = ValueWithInterval()
    joint: ValueWithInterval | None = None
    inflation: OptionalFloat = None
    dominant: OptionalFloat = None  # share of draws in which its slope is the largest


class ProximityVsJsrRecord(Record):
    """How JSR rise goes along with nearness, over `points` selections of one base."""

    model: str | None = None
    train_modality: str | None = None
    set: str | None = None
    modality: str | None = None
    points: int | None = None
    replicates: int | None = None
    predictors: ListField[PredictorRecord] = []
    note: str | None = None
