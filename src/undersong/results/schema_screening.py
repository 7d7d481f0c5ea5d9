"""Records of screening in results.json: distances, selections, axis agreement, screening scores and corpus overlap."""

from __future__ import annotations

from typing import Any

from undersong.results.schema_base import DictField, ListField, OptionalFloat, Record


class ValueWithInterval(Record):
    """A value with its 95 % interval."""

    value: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None


class QuarantinedItem(Record):
    """An item in quarantine."""

    id: str
    reason: str | None = None


class DistanceHistogram(Record):
    """Of the pool's distances: one more edge than counts."""

    edges: ListField[float] = []
    counts: ListField[float] = []


class LabelMedian(Record):
    """Of the distances of the samples with one value of a label."""

    n: int | None = None
    median: OptionalFloat = None


class NeighborPair(Record):
    """A benign sample and the harmful item nearest to it."""

    id: str
    rank: int | None = None
    text: str | None = None
    speaker: str | None = None
    distance: OptionalFloat = None
    distance_centred: OptionalFloat = None
    nearest_id: str | None = None
    nearest_text: str | None = None
    second_distance: OptionalFloat = None


class AxisScreening(Record):
    """One axis, measured to one harm set."""

    axis: str
    harm_set: str | None = None
    model: str | None = None
    encoder: str | None = None
    score: str | None = None
    centred: bool | None = None
    n_pool: int | None = None
    n_harm: int | None = None
    quarantined: ListField[QuarantinedItem] = []
    distances: DictField[OptionalFloat] = {}
    histogram: DistanceHistogram | None = None
    by_label: DictField[DictField[LabelMedian]] = {}
    closest: ListField[NeighborPair] = []
    distant: ListField[NeighborPair] = []


class SelectionRecord(Record):
    """What one arm was trained on."""

    axis: str | None = None
    kind: str
    rule: str | None = None
    fraction: OptionalFloat = None
    k: int | None = None
    draw: int | None = None
    hash: str | None = None
    notes: ListField[str] = []
    same_as: ListField[str] = []
    overlap: DictField[OptionalFloat] = {}
    balance: DictField[Any] = {}
    seconds: DictField[OptionalFloat] = {}


class AxisAgreementRecord(Record):
    """Square matrices over `axes`."""

    axes: ListField[str] = []
    spearman: ListField[ListField[OptionalFloat]] = []
    overlap_closest: ListField[ListField[OptionalFloat]] = []


class AxisPair(Record):
    """How far a reference axis `a` and a model's own axis `b` agree, over `n` samples in `clusters` groups."""

    a: str
    b: str
    n: int | None = None
    clusters: int | None = None
    spearman: ValueWithInterval = ValueWithInterval()
    overlap: ValueWithInterval = ValueWithInterval()
    cka: ValueWithInterval = ValueWithInterval()
    chance: OptionalFloat = None  # of the overlap


class AxisFingerprintRecord(Record):
    """Which reference axis a model's own goes along with; `hears` names one by measure where its lead is clear."""

    model: str | None = None
    internal: str
    pairs: ListField[AxisPair] = []
    hears: DictField[str | None] = {}


class ScreeningScoreRecord(Record):
    """The screening score of the pool on one axis; `n`: pool, harmless and held-out samples."""

    axis: str
    model: str | None = None
    harm_set: str | None = None
    n: ListField[int] = []
    clusters: ListField[int] = []
    value: ValueWithInterval = ValueWithInterval()
    heldout: ValueWithInterval = ValueWithInterval()


class ScoreVsJsrPoint(Record):
    """One selection: the screening score of its samples and what training on them did."""

    arm: str
    score: OptionalFloat = None
    jsr: OptionalFloat = None
    runs: int | None = None


class ScoreVsJsrRecord(Record):
    """The score of each selection on one axis beside the JSR after it; `n` selections."""

    axis: str
    model: str | None = None
    train_modality: str | None = None
    set: str | None = None
    n: int | None = None
    spearman: ValueWithInterval = ValueWithInterval()
    points: ListField[ScoreVsJsrPoint] = []


class CorpusOverlap(Record):
    """How many pairs of items two corpora share, or nearly so."""

    a: str
    b: str
    kind: str
    pairs: int = 0
