"""Records of measured outcomes in results.json: run noise, variance components, proximity regression, judge agreement
and comprehension.
"""

from __future__ import annotations

from typing import Literal

from undersong.results.schema_base import Record, ValueWithInterval


class SequentialLookRecord(Record):
    """What the seeds so far told: mean, confidence sequence (None while unbounded), e-value and decision."""

    seeds: int
    mean: float
    low: float | None = None
    high: float | None = None
    e_value: float
    power: float  # of showing a difference with the largest number of seeds
    decision: Literal["shown", "futile", "open"]


class SequentialRecord(Record):
    """The looks at the primary contrast while seeds were added; their intervals hold at every look.

    The t intervals of `comparisons` take no account of the looks.
    """

    contrast: str
    prompt_set: str
    modality: str
    maximum: int
    smallest: float
    stop: list[Literal["shown", "futile"]]
    looks: list[SequentialLookRecord]


class RunNoiseRecord(Record):
    """Variation between training runs on the same samples that differ in their seed alone.

    `sd` is the standard deviation of one run. Two runs differ by less than `repeatability_limit` in 95 % of pairs
    (ISO 5725).
    """

    model: str
    train_modality: str
    prompt_set: str
    modality: str
    groups: int
    runs: int
    df: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    repeatability_limit: float | None = None
    note: str | None = None


class VarianceComponentRecord(Record):
    """Standard deviation that one source adds to a run's rate; if it is None, the record says why."""

    name: str
    groups: int = 0
    df: int = 0
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    share: float | None = None
    note: str | None = None


class VarianceRecord(Record):
    """The spread of a study's runs, split by source.

    `seed_sd_from_prompts` is the part of the seed's standard deviation that more prompts would lower.
    """

    train_modality: str
    prompt_set: str
    modality: str
    n: int
    runs: int
    components: list[VarianceComponentRecord] = []
    sd: float | None = None
    seed_sd_from_prompts: float | None = None
    note: str | None = None


class PredictorRecord(Record):
    """Predictor of one axis: `slope` alone and `joint_slope` with the others, in JSR per SD of proximity."""

    name: str
    rank_correlation: ValueWithInterval
    slope: ValueWithInterval
    joint_slope: ValueWithInterval | None = None
    variance_inflation: float | None = None
    dominant_share: float | None = None  # share of draws in which its slope is the largest


class ProximityVsJsrRecord(Record):
    """The JSR rise against proximity, over `points` selections of one base; also the late gap against the JSR."""

    model: str
    train_modality: str | None = None
    prompt_set: str | None = None
    modality: str
    points: int
    replicates: int
    predictors: list[PredictorRecord] = []
    note: str | None = None


class JudgeDisagreement(Record):
    """One reply that two judges count differently."""

    arm: str
    seed: int | None = None
    step: int
    prompt_id: str
    modality: str
    system: str
    verdict: str
    other_verdict: str


class VerdictPairCount(Record):
    """Number of replies with one verdict by the first judge and one by the other."""

    verdict: str
    other_verdict: str
    n: int


class JudgeAgreement(Record):
    """Agreement of `other_judge` with `judge`, whose verdicts the rates use, on the counted verdict."""

    judge: str
    other_judge: str
    prompt_set: str
    counted_verdict: Literal["jailbreak", "refusal"]
    n: int
    n_lost: int  # replies without a verdict by either judge, not among the n
    clusters: int
    both: int
    only_judge: int
    only_other: int
    neither: int
    kappa: ValueWithInterval | None = None
    verdict_counts: list[VerdictPairCount] = []
    disagreements: list[JudgeDisagreement] = []  # the first of them


class ComprehensionRate(Record):
    """A share of `n` prompts, with its interval clustered by behavior."""

    n: int
    clusters: int
    successes: int
    rate: float
    low: float
    high: float


class RepetitionRate(ComprehensionRate):
    """Share of requests that the model repeats; the others it repeats wrongly, refuses to repeat, or fails on."""

    wrong: int
    refused_repetitions: int
    failed: int
    word_error_rate: float | None = None


class OnTopicRate(ComprehensionRate):
    """Non-refusals that are about their request, by its rank among the requests of the set."""

    unranked: int
    n_requests: int | None = None
    chance: float | None = None
    top1: float
    top1_chance: float | None = None
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    auc_chance: float | None = None


class ComprehendedRate(ComprehensionRate):
    """Prompts with a non-refusal, a right repetition and a reply on topic; `max_rate`: everything unknown counted."""

    max_rate: float


class ComprehensionCounts(Record):
    """Non-refusals by whether their request was repeated and whether they are on topic."""

    repeated_on_topic: int
    repeated_off_topic: int
    unrepeated_on_topic: int
    unrepeated_off_topic: int


class ComprehensionRecord(Record):
    """Comprehension of a harmful set: `repeated` is None for typed prompts, `on_topic` None without non-refusals."""

    repeated: RepetitionRate | None = None
    on_topic: OnTopicRate | None = None
    comprehended: ComprehendedRate
    of_non_refusals: ComprehensionRate | None = None
    counts: ComprehensionCounts
