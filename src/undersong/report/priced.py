"""Defenses and their prices in results.json as the report reads them."""

from __future__ import annotations

from undersong.report.record import Many, Named, Number, Record


class Interval(Record):
    """A mean over runs, as a share, with its 95 % t interval; no ends where runs cannot show one."""

    mean: Number = None
    low: Number = None
    high: Number = None


class Change(Record):
    """JSR of a defense less that of its undefended arm, as a share, paired over runs: negative where it helps."""

    difference: Number = None
    low: Number = None
    high: Number = None
    p: Number = None
    told: bool | None = None  # whether run noise is excluded; older results do not say it


class Recommended(Record):
    """What is recommended to one undefended arm: the name of a defense, or None, and why."""

    family: str | None = None
    axis: str | None = None
    fraction: Number = None
    train_modality: str | None = None
    defense: str | None = None
    reason: str = ""


class Defense(Record):
    """What one defense brings and costs one undefended arm, at the last step; the row `none` is that arm itself.

    Rates are means over runs, by prompt modality, or by prompt set and then modality.
    """

    defense: str
    family: str | None = None
    fraction: Number = None
    axis: str | None = None
    train_modality: str | None = None
    step: int | None = None
    kind: str | None = None  # of selection
    system: str | None = None  # name of a system text
    runs: int | None = None
    jsr: Named[Interval | None] = {}  # on the first harmful set
    over_refusal: Named[Named[Interval | None]] = {}
    utility: Named[Named[Interval | None]] = {}  # benign prompts answered rightly
    jsr_by_set: Named[Named[Interval | None]] = {}
    against: Named[Change] = {}  # of `jsr`
    again: Named[Interval | None] = {}  # `jsr` after a second tuning on top
    changes: Many[str] = []  # what was done to make it, beyond `kind` and `system`
    metric: str = "jsr"  # or non_refusal_rate
    kept: Interval | None = None  # of what the tuning taught; may lie outside [0, 1]
    cost: Number = None  # the largest loss, as a share; None: undefended
    safe: bool | None = None  # whether no rate above the limits is left possible; None: nothing says it
    note: str | None = None
