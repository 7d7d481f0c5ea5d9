"""Records of measured outcomes in results.json: run noise, variance components, proximity regression, judge agreement
and comprehension.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from undersong.evaluation.rates import Metric
from undersong.results.schema_base import OmitsUnset, Record, ValueWithInterval


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


class PairedRunDifference(Record):
    """One (base, draw, seed): each side's rate and the difference b - a, as shares.

    Where two effects are compared, `a` and `b` are those effects.
    """

    base_seed: int
    draw: int
    seed: int
    a: float
    b: float
    difference: float


class RandomEffectRecord(Record):
    """Standard deviation that base, draw or seed adds to the difference of one run; 0 where none was seen."""

    name: str
    groups: int
    sd: float


class MixedModelRecord(Record):
    """Mean difference by a mixed model of runs; without a fit the numbers are None, and the note says why.

    The plain reading is the paired t interval over independent units.
    """

    runs: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    effects: list[RandomEffectRecord] = []
    note: str | None = None

    @property
    def negated(self) -> MixedModelRecord:
        """The same model of the differences with the other sign."""
        difference, low, high = (
            None if number is None else -number for number in (self.difference, self.high, self.low)
        )
        return self.model_copy(update={"difference": difference, "low": low, "high": high})


class ComparisonSide(Record):
    """One side of a comparison, by the id of its arm: `base`, or a name in `runs[].arm`.

    Of an interaction the side is an effect: the rate of `arm` minus that of `minus_arm`.
    """

    arm: str
    minus_arm: str | None = None
    system: str  # name of the system prompt
    seed: int | None = None  # scope model: of the run
    draw: int | None = None
    label: str  # what sets it apart from the other side, for people


class DiscordantPrompts(Record):
    """Prompts with the outcome on one side only, and McNemar's exact p over prompts, unclustered."""

    n_only_a: int
    n_only_b: int
    clusters: int
    mcnemar_p: float


class ArmComparison(OmitsUnset):
    """Two arms, or an arm and the base, on the same prompts; `difference` is the minuend minus the other side.

    With scope `recipe`, runs are the sample. With scope `model`, prompts are the sample, and the result holds for the
    weights of one run. `p_adjusted` is corrected within the family: the declared primary questions, or all others of
    the scope. Each endpoint has families of its own.
    """

    OMITTED_IF_NONE: ClassVar[tuple[str, ...]] = ("mixed_model",)

    id: str  # 12 hex digits of the identity of the question; equal questions of two studies have equal ids
    scope: Literal["recipe", "model"]
    family: Literal["primary", "exploratory"] = "exploratory"
    question: str  # for people; nothing is looked up by it
    a: ComparisonSide
    b: ComparisonSide
    minuend: Literal["a", "b"] = "b"
    prompt_set: str
    modality: str
    step: int
    model: str | None = None  # scope model: the base
    estimates: list[PairedRunDifference] = []
    n: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    method: str | None = None
    note: str | None = None
    mixed_model: MixedModelRecord | None = None  # scope recipe: where the runs have more than one level

    def with_minuend(self, side: Literal["a", "b"]) -> Self:
        """The same comparison with the other side taken from this one."""
        if side == self.minuend:
            return self
        difference, low, high = (
            None if number is None else -number for number in (self.difference, self.high, self.low)
        )
        update = {"minuend": side, "difference": difference, "low": low, "high": high}
        return self.model_copy(update=update | {"mixed_model": self.mixed_model and self.mixed_model.negated})


class ComparisonRecord(ArmComparison):
    """Comparison of two arms, or of an arm and the base, by their rate on harmful prompts."""

    metric: Metric
    discordant: DiscordantPrompts | None = None


class MarginComparisonRecord(ArmComparison):
    """Comparison by the refusal margin, in nats; below 0 the minuend would refuse less."""

    metric: Literal["refusal_margin"] = "refusal_margin"


DoseEndpoint = Literal["steps_to_half_margin", "steps_to_half_jsr"]


class RunDose(Record):
    """Step at which one run reaches an endpoint, interpolated; the last step if it is not reached by then."""

    base_seed: int
    draw: int
    seed: int
    step: float
    reached: bool


class DoseRecord(Record):
    """Steps that the runs of one arm take to an endpoint: half of the base's refusal margin, or a JSR of 50 %.

    `median` is the step by which half of the runs have reached it (Kaplan-Meier), `low` and `high` its exact interval.
    They are None where they lie beyond `last_step`, and `low` also where there are too few runs for an interval.
    `mean_until_last` is the restricted mean: a run that does not reach the endpoint counts with `last_step`.
    """

    arm: str
    endpoint: DoseEndpoint
    prompt_set: str
    modality: str
    system: str
    steps: list[int]  # measured on every run; 0 is the base
    last_step: int
    n: int
    n_reached: int
    median: float | None = None
    low: float | None = None
    high: float | None = None
    has_interval: bool = False
    mean_until_last: ValueWithInterval
    runs: list[RunDose] = []
    note: str | None = None


class DoseComparisonRecord(ArmComparison):
    """Comparison of two arms by the steps to an endpoint, restricted to the last step; below 0 `minuend` is faster."""

    metric: DoseEndpoint


class MarginalEffect(Record):
    """The mean effect of an axis, or of the training modality, within one base: level `b` minus level `a`."""

    id: str  # 12 hex digits; equal for all bases
    model: str
    base_seed: int
    factor: Literal["axis", "modality"]
    level: str
    a: str
    b: str
    question: str
    prompt_set: str
    modality: str
    system: str
    step: int
    metric: Metric
    n: int
    n_arms: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    method: str | None = None
    note: str | None = None
    estimates: list[PairedRunDifference] = []
