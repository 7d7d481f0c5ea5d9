"""The mechanism part of results.json as the report reads it."""

from __future__ import annotations

from undersong.report.record import Many, Number, Record
from undersong.report.variation import Predicts


class Contrast(Record):
    """The prompts behind the refusal gap: directions are fitted on some, and every gap is of those held out.

    `unmatched`: a sentence for each way in which harmful and harmless prompts differ besides harm.
    """

    harm_n: int | None = None
    benign_n: int | None = None
    held_out_harm_n: int | None = None
    held_out_benign_n: int | None = None
    unmatched: Many[str] = []
    note: str | None = None


class EncoderFacts(Record):
    """Whether anything but the language model moved: hashes before and after all trainings, largest absolute
    differences.

    `output_*`: of what is heard with adapters on and off; `input_*`: of what goes into the decoder, before and after.
    Exactly 0 where nothing moved.
    """

    parameters_equal: bool | None = None
    buffers_equal: bool | None = None
    output_max_abs_difference: Number = None
    input_max_abs_difference: Number = None  # of the decoder


class LayerPoint(Record):
    """One run (or the base) at one layer, on held-out prompts of one modality.

    Projections are on the base's direction, in units in which its contrast sets have the means +1 and -1.
    """

    arm: str
    model: str | None = None
    layer: int  # 0: the decoder's input
    seed: int | None = None
    step: int = 0
    modality: str = "audio"
    projection_harm: Number = None
    projection_benign: Number = None
    gap: Number = None  # harmful less benign
    gap_low: Number = None  # 95 % over clusters
    gap_high: Number = None
    gap_before: Number = None  # the base's own
    cosine_to_refit: Number = None  # of the base's direction with one fitted on this model
    drift: Number = None  # mean of |after - before| / |before|
    cka: Number = None  # linear, with the base's states
    recognised: Number = None  # balanced accuracy of a probe for harm


class LateChange(Record):
    """One run's change of the gap, after - before, mean over the last quarter of layers; interval over clusters."""

    arm: str
    model: str | None = None
    seed: int | None = None
    modality: str = "audio"
    gap_change: Number = None
    low: Number = None
    high: Number = None


class Claim(Record):
    """Closest less distant: the change of the late gap over paired runs."""

    question: str = ""
    model: str | None = None
    modality: str | None = None
    n: int | None = None
    difference: Number = None
    low: Number = None
    high: Number = None
    p: Number = None
    p_adjusted: Number = None


class CellChange(Record):
    """Trained on one modality, probed with one: mean change of the late gap over the runs of a kind."""

    model: str | None = None
    kind: str = ""
    train_modality: str | None = None
    modality: str | None = None
    n: int | None = None
    change: Number = None
    low: Number = None
    high: Number = None


class Asymmetry(Record):
    """Trained on audio less trained on text: the late gap, and the JSR."""

    model: str | None = None
    kind: str = ""
    modality: str | None = None
    late: Number = None
    late_low: Number = None
    late_high: Number = None
    jsr: Number = None
    jsr_low: Number = None
    jsr_high: Number = None
    mirrors: bool | None = None


class Recognition(Record):
    """Late probes for harm before and after, and the change of the refusal rate, over runs."""

    model: str | None = None
    kind: str = ""
    train_modality: str | None = None
    modality: str | None = None
    n: int | None = None
    before: Number = None
    after: Number = None
    change: Number = None
    low: Number = None
    high: Number = None
    refusals: Number = None
    refusals_low: Number = None
    refusals_high: Number = None
    over: str = "runs"  # what the interval of the change is over
    recognition: str = ""  # kept | lost | absent | open
    dissociated: bool = False
    margin: Number = None


class Mechanism(Record):
    """Where the refusal went: `curves` by layer; `late` and what follows by the mean over the last quarter of layers.

    `layers`: how many the decoder has.  `late` has an entry a run; `claims`, `cells`, `asymmetry` and `recognition` are
    over runs, `with_jsr` (change of the late gap against JSR) over arms, all within one base.
    """

    layers: int | None = None
    contrast: Contrast = Contrast()
    encoder: EncoderFacts | None = None
    curves: Many[LayerPoint] = []
    late: Many[LateChange] = []
    claims: Many[Claim] = []
    cells: Many[CellChange] = []
    asymmetry: Many[Asymmetry] = []
    with_jsr: Many[Predicts] = []
    recognition: Many[Recognition] = []
    note: str | None = None
