"""Records of measured outcomes in results.json: run noise, variance components, proximity regression, judge agreement,
comprehension and defenses.
"""

from __future__ import annotations

from undersong.results.schema_base import DictField, ListField, OptionalFloat, Record
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


class JudgeDisagreement(Record):
    """One reply that two judges count differently."""

    arm: str
    prompt_id: str
    seed: int | None = None
    step: int | None = None
    modality: str | None = None
    system: str | None = None
    a: str = ""
    b: str = ""


class JudgeAgreement(Record):
    """How far judge `b` agrees with `a`, whose the rates are, on what they count."""

    a: str
    b: str
    set: str | None = None
    counted: str | None = None
    n: int = 0
    left_out: int = 0  # replies without a verdict, not among the n
    both: int = 0
    only_a: int = 0
    only_b: int = 0
    neither: int = 0
    kappa: ValueWithInterval | None = None
    disagreements: ListField[JudgeDisagreement] = []  # the first of them


class ComprehensionRate(Record):
    """Of some prompts; `chance`: what replies about nothing would have; `refused`: of repetitions."""

    n: int = 0
    rate: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None
    chance: OptionalFloat = None
    auc: OptionalFloat = None
    refused: int = 0


class ComprehensionRecord(Record):
    """Was a harmful set heard (None: typed), and what are the non-refusals about (None: there are none)?"""

    heard: ComprehensionRate | None = None
    about: ComprehensionRate | None = None
    comprehended: ComprehensionRate | None = None
    of_non_refusals: ComprehensionRate | None = None


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
