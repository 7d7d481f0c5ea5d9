"""Options of `probe`, and its prompts: contrast sets to fit and choose on, held-out sets to report on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from undersong.mechanism.contrast_sets import MIN_CONTRAST_BEHAVIORS, ContrastSets, choosing_behaviors
from undersong.mechanism.direction_selection import MAX_DEPTH, MAX_DIVERGENCE
from undersong.mechanism.probes import EQUIVALENCE_MARGIN
from undersong.types import Prompt, Sample, UndersongError


@dataclass(frozen=True)
class ProbeOptions:
    """`adapter`: a LoRA folder, or a decoder tuned whole.  `system` is the text itself; none: no system turn."""

    model: str
    adapter: Path
    harmful: str  # corpora: what directions are fitted on
    harmless: str
    test_harmful: str  # what figures are of
    test_harmless: str
    modality: str = "audio"
    system: str | None = None
    instruction: str | None = None
    judge: str = "exact"
    refusals: tuple[str, ...] = ()
    limit: int | None = None  # tokens of a reply; none: `study.reply_limit`
    margin: float = EQUIVALENCE_MARGIN  # loss of a probe's balanced accuracy that would matter
    nested: int = 0  # permutations of labels through nested cross-validation in the contrast sets; 0: none
    random: int = 19  # directions of chance; 19 can show p = .05
    strengths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    divergence: float = MAX_DIVERGENCE
    depth: float = MAX_DEPTH
    seed: int = 0

    def __post_init__(self) -> None:
        from undersong.study.judge_names import judge_criterion

        if not 0 < self.margin < 0.5:
            raise UndersongError(f"A margin of balanced accuracy lies between 0 and 0.5, not at {self.margin}.")
        if not self.divergence > 0 or not 0 < self.depth <= 1:
            raise UndersongError(
                f"Divergence {self.divergence} and depth {self.depth} leave no layer; give one above 0, and a share."
            )
        if judge_criterion(self.judge) == "utility":
            raise UndersongError(
                f"The judge {self.judge} is of usefulness, and a probe asks for refusals; take another."
            )


def load_contrast_splits(options: ProbeOptions) -> dict[str, ContrastSets]:
    """`fit`, `choose` and `test`.

    Raises UndersongError where contrast and held-out sets share items or behaviors, or a set has too few behaviors.
    """
    from undersong.corpora import HELD_OUT, check_disjoint_items

    contrast = {
        kind: _enough_samples(ref, options.modality) for kind, ref in _corpus_refs(options, ("harmful", "harmless"))
    }
    test = {
        kind: _enough_samples(ref, options.modality)
        for kind, ref in _corpus_refs(options, ("test_harmful", "test_harmless"))
    }
    check_disjoint_items(contrast["harmful"], contrast["harmless"], "the harmless one", "The harmful contrast set")
    check_disjoint_items(test["test_harmful"], test["test_harmless"], "the set test_harmless", "The set test_harmful")
    for contrast_name, contrast_samples in contrast.items():
        for test_name, test_samples in test.items():
            check_disjoint_items(
                contrast_samples, test_samples, f"the set {test_name}", f"The contrast set {contrast_name}", HELD_OUT
            )
    behaviors_by_kind = {kind: choosing_behaviors(kind, samples, options.seed) for kind, samples in contrast.items()}

    def kind_prompts(samples: Sequence[Sample], harmful: bool) -> list[Prompt]:
        from undersong.evaluation.prompts import make_prompts

        return make_prompts(
            samples,
            set_name="harm" if harmful else "benign",
            harmful=harmful,
            modality=options.modality,
            system="plain" if options.system is None else "given",
            system_text=options.system,
            instruction=options.instruction,
        )

    def split_prompts(is_choosing: bool) -> ContrastSets:
        samples_by_kind = [
            [sample for sample in contrast[kind] if (sample.cluster in behaviors_by_kind[kind]) == is_choosing]
            for kind in ("harmful", "harmless")
        ]
        return ContrastSets(kind_prompts(samples_by_kind[0], True), kind_prompts(samples_by_kind[1], False))

    held_out = ContrastSets(kind_prompts(test["test_harmful"], True), kind_prompts(test["test_harmless"], False))
    return {"fit": split_prompts(False), "choose": split_prompts(True), "test": held_out}


def _corpus_refs(options: ProbeOptions, names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, str(getattr(options, name))) for name in names]


def _enough_samples(ref: str, modality: str) -> Sequence[Sample]:
    from undersong.pipeline.standalone.inputs import usable_samples

    usable = usable_samples(ref, modality)
    if (count := len({sample.cluster for sample in usable})) < MIN_CONTRAST_BEHAVIORS:
        raise UndersongError(
            f"{ref} has {count} behaviors, and a direction needs {MIN_CONTRAST_BEHAVIORS} of each kind; give more."
        )
    return usable
