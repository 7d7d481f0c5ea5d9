"""Options of `probe`, and its prompts: contrast sets to fit and choose on, held-out sets to report on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from undersong.options import Option
from undersong.settings.defaults import EQUIVALENCE_MARGIN, MAX_DEPTH, MAX_KL
from undersong.settings.judge_names import default_judge
from undersong.standalone.options import (
    MODEL_HELP,
    DefaultedJudgeName,
    Instruction,
    MaxNewTokens,
    Modality,
    RefusalTexts,
    SystemPrompt,
)
from undersong.types import MAX_SEED, Prompt, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.evaluation.contrast_sets import ContrastSets


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """A tuned model to look into, the prompts for it, and how."""

    RESULT_NEUTRAL: ClassVar[tuple[str, ...]] = ()  # every field can change a result

    adapter: Annotated[
        Path, Option("Tuned model: a PEFT folder, or a decoder that `tune --method full` wrote.", argument=True)
    ]
    model: Annotated[str, Option(f"Model that was tuned: {MODEL_HELP}.")]
    contrast_harmful: Annotated[str, Option("Harmful prompts to fit directions on.", metavar="CORPUS")]
    contrast_benign: Annotated[
        str, Option("Benign prompts to fit directions on, matched in length, voice and form.", metavar="CORPUS")
    ]
    held_out_harmful: Annotated[str, Option("Held-out harmful prompts; all figures are of these.", metavar="CORPUS")]
    held_out_benign: Annotated[str, Option("Held-out benign prompts, matched.", metavar="CORPUS")]
    modality: Modality = "audio"
    system_prompt: SystemPrompt = None
    instruction: Instruction = None
    judge: DefaultedJudgeName = None
    refusal_texts: RefusalTexts = ()
    max_new_tokens: MaxNewTokens = None
    equivalence_margin: Annotated[
        float, Option("Loss of a probe's balanced accuracy that would matter, between 0 and 0.5.")
    ] = EQUIVALENCE_MARGIN
    nested_permutations: Annotated[
        int, Option("Also cross-validate the probes in nested folds, with N label permutations.", metavar="N", min=0)
    ] = 0
    random_directions: Annotated[int, Option("Random directions to compare with; 19 can show p = .05.", min=19)] = 19
    strengths: Annotated[
        tuple[float, ...],
        Option(
            "Strength to try when adding the direction back; repeatable. Default: 0.5, 1, 2 and 4.",
            "--strength",
            metavar="X",
            min=0,
        ),
    ] = (0.5, 1.0, 2.0, 4.0)
    max_kl: Annotated[
        float, Option("Largest KL divergence, in nats, that ablating a direction may cause on benign prompts.")
    ] = MAX_KL
    max_depth: Annotated[
        float,
        Option("Layers up to this share of all layers may be the cause; the last layer never is.", min=0, max=1),
    ] = MAX_DEPTH
    seed: Annotated[
        int, Option("Seed of the split of the contrast sets and of the random directions.", min=0, max=MAX_SEED)
    ] = 0

    @property
    def judge_name(self) -> str:
        """The judge of the replies: the given one, or the default that fits the model."""
        return self.judge or default_judge([self.model], self.refusal_texts)

    def __post_init__(self) -> None:
        from undersong.settings.judge_names import judge_criterion

        if not 0 < self.equivalence_margin < 0.5:
            raise UndersongError(
                f"A margin of balanced accuracy lies between 0 and 0.5, not at {self.equivalence_margin}."
            )
        if not self.max_kl > 0 or not 0 < self.max_depth <= 1:
            raise UndersongError(
                f"--max-kl {self.max_kl} and --max-depth {self.max_depth} leave no layer; give one above 0, and a "
                "share."
            )
        if self.judge is not None and judge_criterion(self.judge) == "utility":
            raise UndersongError(
                f"The judge {self.judge} is of usefulness, and a probe asks for refusals; take another."
            )


def load_contrast_splits(options: ProbeOptions) -> dict[str, ContrastSets]:
    """Load the contrast sets `fit`, `choose` and `test`.

    Raises UndersongError if contrast and held-out sets share items or behaviors, or if a set has too few behaviors.
    """
    from undersong.corpora.overlap import HELD_OUT, check_disjoint_items
    from undersong.evaluation.contrast_sets import ContrastSets, choosing_behaviors

    contrast = {  # the names of the kinds seed the split
        "harmful": _enough_samples(options.contrast_harmful, options.modality),
        "benign": _enough_samples(options.contrast_benign, options.modality),
    }
    test = {
        "held_out_harmful": _enough_samples(options.held_out_harmful, options.modality),
        "held_out_benign": _enough_samples(options.held_out_benign, options.modality),
    }
    check_disjoint_items(contrast["harmful"], contrast["benign"], "the benign one", "The harmful contrast set")
    check_disjoint_items(
        test["held_out_harmful"], test["held_out_benign"], "the set held_out_benign", "The set held_out_harmful"
    )
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
            system="plain" if options.system_prompt is None else "given",
            system_text=options.system_prompt,
            instruction=options.instruction,
        )

    def split_prompts(is_choosing: bool) -> ContrastSets:
        samples_by_kind = [
            [sample for sample in contrast[kind] if (sample.cluster in behaviors_by_kind[kind]) == is_choosing]
            for kind in ("harmful", "benign")
        ]
        return ContrastSets(kind_prompts(samples_by_kind[0], True), kind_prompts(samples_by_kind[1], False))

    held_out = ContrastSets(kind_prompts(test["held_out_harmful"], True), kind_prompts(test["held_out_benign"], False))
    return {"fit": split_prompts(False), "choose": split_prompts(True), "test": held_out}


def _enough_samples(ref: str, modality: str) -> Sequence[Sample]:
    from undersong.evaluation.contrast_sets import MIN_CONTRAST_BEHAVIORS
    from undersong.standalone.inputs import usable_samples

    usable = usable_samples(ref, modality)
    if (count := len({sample.cluster for sample in usable})) < MIN_CONTRAST_BEHAVIORS:
        raise UndersongError(
            f"{ref} has {count} behaviors, and a direction needs {MIN_CONTRAST_BEHAVIORS} of each kind; give more."
        )
    return usable
