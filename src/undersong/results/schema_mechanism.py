"""Records of the mechanism analysis in results.json: refusal gap by layer, late-layer tests and harm recognition."""

from __future__ import annotations

from undersong.results.schema_base import ListField, OptionalFloat, Record
from undersong.results.schema_outcomes import ProximityVsJsrRecord


class ContrastRecord(Record):
    """The prompts behind the refusal gap: directions are fitted on some, and every gap is of those held out.

    `unmatched`: a sentence for each way in which harmful and harmless prompts differ besides harm.
    """

    harm_n: int | None = None
    benign_n: int | None = None
    held_out_harm_n: int | None = None
    held_out_benign_n: int | None = None
    unmatched: ListField[str] = []
    note: str | None = None


class FrozenEncoderCheck(Record):
    """Whether anything but the language model moved: hashes before and after all trainings, largest absolute
    differences.

    `output_*`: of what is heard with adapters on and off; `input_*`: of what goes into the decoder, before and after.
    Exactly 0 where nothing moved.
    """

    parameters_equal: bool | None = None
    buffers_equal: bool | None = None
    output_max_abs_difference: OptionalFloat = None
    input_max_abs_difference: OptionalFloat = None  # of the decoder


class LayerMeasurement(Record):
    """One run (or the base) at one layer, on held-out prompts of one modality.

    Projections are on the base's direction, in units in which its contrast sets have the means +1 and -1.
    """

    arm: str
    model: str | None = None
    layer: int  # 0: the decoder's input
    seed: int | None = None
    step: int = 0
    modality: str = "audio"
    projection_harm: OptionalFloat = None
    projection_benign: OptionalFloat = None
    gap: OptionalFloat = None  # harmful less benign
    gap_low: OptionalFloat = None  # 95 % over clusters
    gap_high: OptionalFloat = None
    gap_before: OptionalFloat = None  # the base's own
    cosine_to_refit: OptionalFloat = None  # of the base's direction with one fitted on this model
    drift: OptionalFloat = None  # mean of |after - before| / |before|
    cka: OptionalFloat = None  # linear, with the base's states
    recognised: OptionalFloat = None  # balanced accuracy of a probe for harm


class LateGapChange(Record):
    """One run's change of the gap, after - before, mean over the last quarter of layers; interval over clusters."""

    arm: str
    model: str | None = None
    seed: int | None = None
    modality: str = "audio"
    gap_change: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None


class LateGapComparison(Record):
    """Closest less distant: the change of the late gap over paired runs."""

    question: str = ""
    model: str | None = None
    modality: str | None = None
    n: int | None = None
    difference: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None
    p: OptionalFloat = None
    p_adjusted: OptionalFloat = None


class LateGapChangeByModality(Record):
    """Trained on one modality, probed with one: mean change of the late gap over the runs of a kind."""

    model: str | None = None
    kind: str = ""
    train_modality: str | None = None
    modality: str | None = None
    n: int | None = None
    change: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None


class ModalityAsymmetry(Record):
    """Trained on audio less trained on text: the late gap, and the JSR."""

    model: str | None = None
    kind: str = ""
    modality: str | None = None
    late: OptionalFloat = None
    late_low: OptionalFloat = None
    late_high: OptionalFloat = None
    jsr: OptionalFloat = None
    jsr_low: OptionalFloat = None
    jsr_high: OptionalFloat = None
    mirrors: bool | None = None


class HarmRecognition(Record):
    """Late probes for harm before and after, and the change of the refusal rate, over runs."""

    model: str | None = None
    kind: str = ""
    train_modality: str | None = None
    modality: str | None = None
    n: int | None = None
    before: OptionalFloat = None
    after: OptionalFloat = None
    change: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None
    refusals: OptionalFloat = None
    refusals_low: OptionalFloat = None
    refusals_high: OptionalFloat = None
    over: str = "runs"  # what the interval of the change is over
    recognition: str = ""  # kept | lost | absent | open
    dissociated: bool = False
    margin: OptionalFloat = None


class MechanismRecord(Record):
    """Where the refusal went: `curves` by layer; `late` and what follows by the mean over the last quarter of layers.

    `layers`: how many the decoder has.  `late` has an entry a run; `claims`, `cells`, `asymmetry` and `recognition` are
    over runs, `with_jsr` (change of the late gap against JSR) over arms, all within one base.
    """

    layers: int | None = None
    contrast: ContrastRecord = ContrastRecord()
    encoder: FrozenEncoderCheck | None = None
    curves: ListField[LayerMeasurement] = []
    late: ListField[LateGapChange] = []
    claims: ListField[LateGapComparison] = []
    cells: ListField[LateGapChangeByModality] = []
    asymmetry: ListField[ModalityAsymmetry] = []
    with_jsr: ListField[ProximityVsJsrRecord] = []
    recognition: ListField[HarmRecognition] = []
    note: str | None = None
