"""Records of what is known before any training: screens, selections, how axes agree, scores and what they foretold."""

from __future__ import annotations

from typing import Any

from undersong.report.record import Many, Named, Number, Record


class Spread(Record):
    """A value with its 95 % interval."""

    value: Number = None
    low: Number = None
    high: Number = None


class Left(Record):
    """An item in quarantine."""

    id: str
    reason: str | None = None


class Histogram(Record):
    """Of the pool's distances: one more edge than counts."""

    edges: Many[float] = []
    counts: Many[float] = []


class Median(Record):
    """Of the distances of the samples with one value of a label."""

    n: int | None = None
    median: Number = None


class Near(Record):
    """A benign sample and the harmful item nearest to it."""

    id: str
    rank: int | None = None
    text: str | None = None
    speaker: str | None = None
    distance: Number = None
    distance_centred: Number = None
    nearest_id: str | None = None
    nearest_text: str | None = None
    second_distance: Number = None


class Screen(Record):
    """One axis, measured to one harm set."""

    axis: str
    harm_set: str | None = None
    model: str | None = None
    encoder: str | None = None
    score: str | None = None
    centred: bool | None = None
    n_pool: int | None = None
    n_harm: int | None = None
    quarantined: Many[Left] = []
    distances: Named[Number] = {}
    histogram: Histogram | None = None
    by_label: Named[Named[Median]] = {}
    closest: Many[Near] = []
    distant: Many[Near] = []


class Selection(Record):
    """What one arm was trained on."""

    axis: str | None = None
    kind: str
    rule: str | None = None
    fraction: Number = None
    k: int | None = None
    draw: int | None = None
    hash: str | None = None
    notes: Many[str] = []
    same_as: Many[str] = []
    overlap: Named[Number] = {}
    balance: Named[Any] = {}
    seconds: Named[Number] = {}


class Agreement(Record):
    """Square matrices over `axes`."""

    axes: Many[str] = []
    spearman: Many[Many[Number]] = []
    overlap_closest: Many[Many[Number]] = []


class AxisPair(Record):
    """How far a reference axis `a` and a model's own axis `b` agree, over `n` samples in `clusters` groups."""

    a: str
    b: str
    n: int | None = None
    clusters: int | None = None
    spearman: Spread = Spread()
    overlap: Spread = Spread()
    cka: Spread = Spread()
    chance: Number = None  # of the overlap


class Fingerprint(Record):
    """Which reference axis a model's own goes along with; `hears` names one by measure where its lead is clear."""

    model: str | None = None
    internal: str
    pairs: Many[AxisPair] = []
    hears: Named[str | None] = {}


class Score(Record):
    """The screening score of the pool on one axis; `n`: pool, harmless and held-out samples."""

    axis: str
    model: str | None = None
    harm_set: str | None = None
    n: Many[int] = []
    clusters: Many[int] = []
    value: Spread = Spread()
    heldout: Spread = Spread()


class Point(Record):
    """One selection: the screening score of its samples and what training on them did."""

    arm: str
    score: Number = None
    jsr: Number = None
    runs: int | None = None


class Foretold(Record):
    """The score of each selection on one axis beside the JSR after it; `n` selections."""

    axis: str
    model: str | None = None
    train_modality: str | None = None
    set: str | None = None
    n: int | None = None
    spearman: Spread = Spread()
    points: Many[Point] = []


class Overlap(Record):
    """How many pairs of items two corpora share, or nearly so."""

    a: str
    b: str
    kind: str
    pairs: int = 0
