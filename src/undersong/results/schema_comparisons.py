"""Records of comparisons in results.json: paired differences of arms by rate, refusal margin or steps, their mixed
model, and marginal effects.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from undersong.evaluation.rates import Metric
from undersong.results.schema_base import OmitsUnset, Record, ValueWithInterval

DoseEndpoint = Literal["steps_to_half_margin", "steps_to_half_jsr"]


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
    """Standard deviation that one source adds to a difference; 0 where none was seen.

    `base`, `draw` and `seed` add it to the difference of one run, `prompt` (a cluster of prompts) and `seed x prompt`
    to that of one cluster.
    """

    name: str
    groups: int
    sd: float


class MixedModelRecord(Record):
    """Mean difference by a mixed model of runs; without a fit the numbers are None, and the note says why.

    If the outcomes of single prompts are known, `effects` has `prompt`, and the interval is about further prompts, too.
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
