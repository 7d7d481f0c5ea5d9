"""What a probe asks: contrast sets to fit on and to choose with, held-out ones that every figure is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from undersong.mechanism.choosing import DEPTH, DIVERGENCE
from undersong.mechanism.recognition import MARGIN
from undersong.types import Prompt, Sample, UndersongError

LEAST = 8  # behaviours of a kind: with fewer a direction is that of single prompts
CHOOSING = 1 / 3  # share of the contrast sets' behaviours that layers and strengths are chosen on
STREAM = 0xC405E


@dataclass(frozen=True)
class Probing:
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
    margin: float = MARGIN  # loss of a probe's balanced accuracy that would matter
    nested: int = 0  # permutations of labels through nested cross-validation in the contrast sets; 0: none
    random: int = 19  # directions of chance; 19 can show p = .05
    strengths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    divergence: float = DIVERGENCE
    depth: float = DEPTH
    seed: int = 0

    def __post_init__(self) -> None:
        from undersong.study.judges import judge_kind

        if not 0 < self.margin < 0.5:
            raise UndersongError(f"A margin of balanced accuracy lies between 0 and 0.5, not at {self.margin}.")
        if not self.divergence > 0 or not 0 < self.depth <= 1:
            raise UndersongError(
                f"Divergence {self.divergence} and depth {self.depth} leave no layer; give one above 0, and a share."
            )
        if judge_kind(self.judge) == "use":
            raise UndersongError(
                f"The judge {self.judge} is of usefulness, and a probe asks for refusals; take another."
            )


@dataclass(frozen=True)
class Sides:
    """Harmful prompts and matched harmless ones."""

    harmful: list[Prompt]
    harmless: list[Prompt]

    @property
    def both(self) -> list[Prompt]:
        """The harmful first."""
        return [*self.harmful, *self.harmless]

    @property
    def samples(self) -> tuple[list[Sample], list[Sample]]:
        """(harmful, harmless), in the prompts' order."""
        harmful, harmless = ([prompt.sample for prompt in side] for side in (self.harmful, self.harmless))
        return harmful, harmless

    @property
    def clusters(self) -> tuple[list[str], list[str]]:
        """(harmful, harmless): the behaviour of each prompt, in order."""
        harmful, harmless = ([prompt.sample.cluster for prompt in side] for side in (self.harmful, self.harmless))
        return harmful, harmless


def asked(what: Probing) -> dict[str, Sides]:
    """`fit`, `choose` and `test`.

    Raises UndersongError where contrast and held-out sets share items or behaviours, or a set has too few behaviours.
    """
    from undersong.corpora import HELD_OUT, refuse_shared_items

    contrast = {kind: _samples(ref, what.modality) for kind, ref in _refs(what, ("harmful", "harmless"))}
    test = {kind: _samples(ref, what.modality) for kind, ref in _refs(what, ("test_harmful", "test_harmless"))}
    refuse_shared_items(contrast["harmful"], contrast["harmless"], "the harmless one", "The harmful contrast set")
    refuse_shared_items(test["test_harmful"], test["test_harmless"], "the set test_harmless", "The set test_harmful")
    for ours, name in contrast.items():
        for theirs, other in test.items():
            refuse_shared_items(name, other, f"the set {theirs}", f"The contrast set {ours}", HELD_OUT)
    chosen = {kind: chosen_behaviours(kind, samples, what.seed) for kind, samples in contrast.items()}

    def side(samples: Sequence[Sample], harmful: bool) -> list[Prompt]:
        from undersong.evaluation.prompts import make_prompts

        return make_prompts(
            samples,
            set_name="harm" if harmful else "benign",
            harmful=harmful,
            modality=what.modality,
            system="plain" if what.system is None else "given",
            system_text=what.system,
            instruction=what.instruction,
        )

    def sides(pick: bool) -> Sides:
        kept = [[s for s in contrast[k] if (s.cluster in chosen[k]) == pick] for k in ("harmful", "harmless")]
        return Sides(side(kept[0], True), side(kept[1], False))

    held = Sides(side(test["test_harmful"], True), side(test["test_harmless"], False))
    return {"fit": sides(False), "choose": sides(True), "test": held}


def _refs(what: Probing, names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, str(getattr(what, name))) for name in names]


def _samples(ref: str, modality: str) -> Sequence[Sample]:
    from undersong.pipeline.alone.readied import to_ask

    usable = to_ask(ref, modality)
    if (count := len({sample.cluster for sample in usable})) < LEAST:
        raise UndersongError(f"{ref} has {count} behaviours, and a direction needs {LEAST} of each kind; give more.")
    return usable


def chosen_behaviours(kind: str, samples: Sequence[Sample], seed: int) -> set[str]:
    """The behaviours that layers and strengths are chosen on; nothing is fitted on or reported of them."""
    names = sorted({sample.cluster for sample in samples})
    order = np.random.default_rng([STREAM, seed, *kind.encode()]).permutation(len(names))
    return {names[i] for i in order[: max(1, round(CHOOSING * len(names)))]}
