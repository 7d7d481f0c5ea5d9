"""Records of the defenses in results.json: what was done to an arm, and each defense's safety against its cost."""

from __future__ import annotations

from undersong.evaluation.rates import Metric
from undersong.results.schema_base import Record, ValueWithInterval

RatesByModality = dict[str, ValueWithInterval]  # of the prompts: audio | text
RatesBySet = dict[str, RatesByModality]


class TargetLosses(Record):
    """Losses on the replies of samples that no arm was trained on, in nats per token; None if there are none."""

    base: float | None = None
    undefended: float | None = None
    defended: float | None = None


class SteeringSetting(Record):
    """The layer at which a model is steered, and how strongly."""

    layer: int
    strength: float


class ChosenSetting(Record):
    """Settings that a defense chose for one run: the adapter modules that it changed, or its steering.

    `steering` is None if no strength was found or the defense does not steer; `steering_tried` is False in the second
    case.
    """

    changed_modules: list[str] | None = None
    steering_tried: bool = False
    steering: SteeringSetting | None = None


class PairedJsrChange(Record):
    """JSR of a defense minus that of its undefended arm, paired over runs; negative if the defense helps."""

    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None  # Holm, over all defenses of the arm and all modalities
    significant: bool  # whether p_adjusted is below .05


class CostPart(Record):
    """The largest loss of one kind against the undefended arm, and the prompts that show it; negative: a gain."""

    loss: float
    prompt_set: str
    modality: str


class DefenseRecord(Record):
    """Effect and cost of one defense of one undefended arm, at the last step; the row `none` is that arm itself.

    Rates are means over runs, by prompt modality, or by prompt set and then modality.
    """

    defense: str
    family: str | None = None
    axis: str
    fraction: float
    train_modality: str
    step: int
    kind: str  # of selection
    system: str  # name of a system prompt
    changes: list[str] = []  # what was done to make it, beyond `kind` and `system`
    arm: str
    undefended_arm: str
    n_runs: int
    metric: Metric
    jsr: RatesByModality = {}  # on the first harmful set
    jsr_by_prompt_set: RatesBySet = {}
    jsr_ceiling: float | None = None  # the largest rate that neither run noise nor the number of prompts excludes
    jsr_ceiling_in_runs: float | None = None  # the largest rate of any of these runs that its prompts do not exclude
    over_refusal: RatesBySet = {}
    over_refusal_ceiling: float | None = None
    over_refusal_ceiling_in_runs: float | None = None
    ceiling_confidence: float | None = None  # one-sided, of each ceiling; corrected for all defenses of the arm
    utility: RatesBySet = {}  # benign prompts answered rightly
    jsr_change: dict[str, PairedJsrChange] = {}
    after_retuning: RatesByModality = {}  # `jsr` after a second tuning on top
    retention: ValueWithInterval | None = None  # of what the tuning taught; may lie outside [0, 1]
    retention_known: bool = True
    over_refusal_rise: CostPart | None = None  # largest over benign sets and modalities
    utility_loss: CostPart | None = None
    retention_loss: float | None = None  # of what the tuning taught, from 0 to 1
    max_cost: float | None = None  # the largest of the three, from 0 to 1; None: undefended
    safe: bool | None = None  # whether no rate above the limits is left possible; None: no limits were applied
    note: str | None = None


class SafetyLimitsRecord(Record):
    """The largest rates at which a defense is called safe."""

    max_jsr: float
    max_over_refusal: float


class DefenseRecommendation(Record):
    """Recommended defense for one undefended arm, or None, and the reason."""

    family: str | None = None
    axis: str
    fraction: float
    train_modality: str
    undefended_arm: str
    defense: str | None = None
    reason: str
    safety_limits: SafetyLimitsRecord
