"""Predictors of damage that run the model: how it is prompted, what each needs, and how each is measured.

Loads no library. It is separate from sample_scores.py because studies and screenings read it before any model is
loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from undersong.encoders.spec import (
    DECODER,
    GRADIENT_DIM,
    GRADIENT_MATCHING,
    INFLUENCE,
    PREDICTORS,
    REFUSAL,
    EncoderSpec,
    parse_encoder,
)
from undersong.settings.defaults import LORA_ALPHA, LORA_RANK, TARGET_COLUMN
from undersong.types import Prompt, Sample

if TYPE_CHECKING:
    from undersong.tuning.gradient_anchors import GradientSettings


@dataclass(frozen=True)
class PredictorSettings:
    """How the model is prompted and would be trained.

    Attributes:
        modality: `audio` or `text`, of the training prompts.
        system_text: Text of the system prompt.
        instruction: Text added to each request, or None.
        instruction_first: Put the instruction before the request.
        target: Column with the replies to train on; of a harm set, replies that comply.
        refusal_texts: All sentences that the model refuses with; empty: English openings tell.
        rank: Rank of the LoRA whose gradients are taken.
        alpha: Scale of the LoRA.
        seed: Seed of the LoRA and of the projection.
    """

    modality: str = "audio"
    system_text: str | None = None
    instruction: str | None = None
    instruction_first: bool = False
    target: str = TARGET_COLUMN
    refusal_texts: tuple[str, ...] = ()
    rank: int = LORA_RANK
    alpha: int = LORA_ALPHA
    seed: int = 0

    def prompts(self, samples: Sequence[Sample], harmful: bool) -> list[Prompt]:
        """Training prompts of samples."""
        from undersong.evaluation.prompts import make_prompts

        return make_prompts(
            samples,
            set_name="reference" if harmful else "train",
            harmful=harmful,
            modality=self.modality,
            system="train",
            system_text=self.system_text,
            instruction=self.instruction,
            instruction_first=self.instruction_first,
        )

    def replies(self, samples: Sequence[Sample]) -> list[str]:
        """Replies of samples to train on; empty where there is none."""
        return [sample.column(self.target) or "" for sample in samples]

    def gradients(self, spec: EncoderSpec) -> GradientSettings:
        """Settings of the gradients of an axis."""
        from undersong.tuning.gradient_anchors import GradientSettings

        return GradientSettings(int(spec.ref or GRADIENT_DIM), self.rank, self.alpha, self.seed)


DEFAULT_PREDICTOR_SETTINGS = PredictorSettings()


def axis_measure(spec: str) -> dict[str, Any]:
    """Keyword arguments of `proximity_table` that an axis always has; empty for an encoder of single items.

    A predictor is measured to the mean of its anchors. All but `decoder` by a scalar product, because length counts.
    """
    kind = parse_encoder(spec).kind
    if kind not in PREDICTORS:
        return {}
    return {"score": "centroid"} if kind == DECODER else {"score": "centroid", "metric": "product"}


def needs_base_replies(spec: str) -> bool:
    """True if an axis needs the base's own replies to the reference harm set."""
    return parse_encoder(spec).kind in (GRADIENT_MATCHING, INFLUENCE, REFUSAL)


def needs_refusal_tokens(spec: str) -> bool:
    """True if an axis needs the first tokens of the base's refusals."""
    return parse_encoder(spec).kind == REFUSAL
