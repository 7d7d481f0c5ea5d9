"""Records of the mechanism analysis in results.json: refusal gap by layer, late-layer tests and harm recognition."""

from __future__ import annotations

from typing import Literal

from undersong.evaluation.rates import Metric
from undersong.results.schema_base import Record
from undersong.results.schema_outcomes import ProximityVsJsrRecord


class ContrastNames(Record):
    """The prompt sets that directions are fitted on."""

    harmful: str
    benign: str


class ContrastRecord(Record):
    """The prompts behind the refusal gap: directions are fitted on some, and every gap is of those held out.

    `mismatches` has a sentence for each way in which harmful and benign prompts differ besides harm.
    """

    fitted_on: ContrastNames
    n_harmful: int
    n_benign: int
    n_held_out_harmful: int
    n_held_out_benign: int
    mismatches: list[str] = []
    note: str | None = None


class FrozenEncoderCheck(Record):
    """Hashes before and after all trainings, and the largest absolute differences, 0 if nothing changed.

    `output_*` compares the encoder's output with adapters on and off. `input_*` compares the decoder's input before and
    after.
    """

    parameters_equal: bool | None = None
    buffers_equal: bool | None = None
    output_max_abs_difference: float | None = None
    input_max_abs_difference: float | None = None
    trainings: int


class LayerMeasurement(Record):
    """One run (or the base) at one layer, on held-out prompts of one modality.

    Projections are on the base's direction, in units in which its contrast sets have the means +1 and -1.
    """

    arm: str
    model: str
    seed: int | None = None
    step: int
    modality: str
    layer: int  # 0: the decoder's input
    projection_harmful: float | None = None
    projection_benign: float | None = None
    gap: float | None = None  # harmful minus benign
    gap_low: float | None = None  # 95 % over clusters
    gap_high: float | None = None
    gap_before: float | None = None  # the base's own
    cosine_to_refit: float | None = None  # of the base's direction with one fitted on this model
    drift: float | None = None  # mean of |after - before| / |before|
    drift_low: float | None = None
    drift_high: float | None = None
    cka: float | None = None  # linear, debiased, with the base's states
    harm_accuracy: float | None = None  # balanced accuracy of a probe for harm


class LateGapChange(Record):
    """One run's change of the gap, after - before, mean over the last quarter of layers; interval over clusters.

    `late_minus_early` is the change in the last third of layers minus that in the first third. It is None if the
    decoder has fewer than 6 layers.
    """

    arm: str
    model: str
    seed: int
    modality: str
    gap_change: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    late_minus_early: float | None = None
    late_minus_early_low: float | None = None
    late_minus_early_high: float | None = None
    late_minus_early_p: float | None = None


class LateGapComparison(Record):
    """Closest minus distant data: the change of the late gap over paired runs."""

    question: str
    model: str
    axis: str
    fraction: float
    train_modality: str
    modality: str
    n: int
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    method: str
    note: str | None = None


class LateGapChangeByModality(Record):
    """Trained on one modality, probed with one: mean change of the late gap over the runs of a kind."""

    model: str
    kind: str
    train_modality: str
    modality: str
    n: int
    change: float
    low: float | None = None
    high: float | None = None
    note: str | None = None


class LateSuppression(Record):
    """Change of the gap in the last third of layers minus that in the first third, over the runs of a kind.

    `outcome` is `late` if the late gap falls, and falls by more than the early gap does; `early` if it falls by less.
    Both need p_adjusted <= .05 and an interval of the late change below 0. It is `too shallow` if the decoder has
    fewer than 6 layers.
    """

    model: str
    kind: str
    train_modality: str
    modality: str
    n: int
    late_minus_early: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    outcome: Literal["late", "early", "undecided", "too shallow"]
    note: str | None = None


class ModalityAsymmetry(Record):
    """Trained on audio minus trained on text: the late gap, and the rate of harmful prompts that get through."""

    model: str
    kind: str
    modality: str
    n: int
    metric: Metric
    late_gap: float
    late_gap_low: float | None = None
    late_gap_high: float | None = None
    rate_change: float
    rate_change_low: float | None = None
    rate_change_high: float | None = None
    opposite_signs: bool | None = None  # None: an interval contains 0 or is missing


class HarmRecognition(Record):
    """Late probes for harm before and after, and the change of the refusal rate.

    `low` and `high` are bounds over runs for any run noise, and `outcome` is of the way of training. `in_runs_low`,
    `in_runs_high` and `in_runs_outcome` are of these models: over prompts, the lowest and highest end of any run.
    """

    model: str
    kind: str
    train_modality: str
    modality: str
    n: int
    before: float
    before_p: float
    after: float
    after_p: float
    change: float
    low: float | None = None
    high: float | None = None
    interval_over: Literal["runs", "prompts"]  # prompts: in results of versions that took equal runs for no run noise
    in_runs_low: float | None = None
    in_runs_high: float | None = None
    in_runs_outcome: Literal["retained", "lost", "absent", "undecided"] | None = None
    equivalence_margin: float
    refusal_rate_change: float | None = None
    refusal_rate_change_low: float | None = None
    refusal_rate_change_high: float | None = None
    outcome: Literal["retained", "lost", "absent", "undecided"]
    dissociated: bool
    finding: str  # for people


class MechanismRecord(Record):
    """Refusal by layer, and by the mean over the last quarter of layers.

    `late_gap_changes` has an entry per run. Comparisons, changes by modality, late suppression, asymmetry and harm
    recognition are over runs. `gap_vs_jsr` (change of the late gap against the JSR) is over arms. All are within one
    base.
    """

    n_layers: int
    contrast_sets: ContrastRecord
    encoder_unchanged: FrozenEncoderCheck | None = None
    layer_measurements: list[LayerMeasurement] = []
    late_gap_changes: list[LateGapChange] = []
    late_gap_comparisons: list[LateGapComparison] = []
    late_gap_by_modality: list[LateGapChangeByModality] = []
    late_suppression: list[LateSuppression] = []
    modality_asymmetry: list[ModalityAsymmetry] = []
    gap_vs_jsr: list[ProximityVsJsrRecord] = []
    harm_recognition: list[HarmRecognition] = []
    note: str | None = None
