"""Defenses and their prices in results.json as the report reads them."""

from __future__ import annotations

from undersong.results.schema_base import DictField, ListField, OptionalFloat, Record


class MeanWithInterval(Record):
    """A mean over runs, as a share, with its 95 % t interval; no ends where runs cannot show one."""

    mean: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None


class PairedJsrChange(Record):
    """JSR of a defense less that of its undefended arm, as a share, paired over runs: negative where it helps."""

    difference: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None
    p: OptionalFloat = None
    told: bool | None = None  # whether run noise is excluded; older results do not say it


class DefenseRecommendation(Record):
    """What is recommended to one undefended arm: the name of a defense, or None, and why."""

    family: str | None = None
    axis: str | None = None
    fraction: OptionalFloat = None
    train_modality: str | None = None
    defense: str | None = None
    reason: str = ""


class DefenseRecord(Record):
    """What one defense brings and costs one undefended arm, at the last step; the row `none` is that arm itself.

    Rates are means over runs, by prompt modality, or by prompt set and then modality.
    """

    defense: str
    family: str | None = None
    fraction: OptionalFloat = None
    axis: str | None = None
    train_modality: str | None = None
    step: int | None = None
    kind: str | None = None  # of selection
    system: str | None = None  # name of a system text
    runs: int | None = None
    jsr: DictField[MeanWithInterval | None] = {}  # on the first harmful set
    over_refusal: DictField[DictField[MeanWithInterval | None]] = {}
    utility: DictField[DictField[MeanWithInterval | None]] = {}  # benign prompts answered rightly
    jsr_by_set: DictField[DictField[MeanWithInterval | None]] = {}
    against: DictField[PairedJsrChange] = {}  # of `jsr`
    again: DictField[MeanWithInterval | None] = {}  # `jsr` after a second tuning on top
    changes: ListField[str] = []  # what was done to make it, beyond `kind` and `system`
    metric: str = "jsr"  # or non_refusal_rate
    kept: MeanWithInterval | None = None  # of what the tuning taught; may lie outside [0, 1]
    cost: OptionalFloat = None  # the largest loss, as a share; None: undefended
    safe: bool | None = None  # whether no rate above the limits is left possible; None: nothing says it
    note: str | None = None
