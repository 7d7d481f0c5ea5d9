"""How a study's models are asked and judged: prompt sets, and what is the same for all of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from undersong.study.base import Modality, StrictModel, check_distinct
from undersong.study.comprehension import Comprehension
from undersong.study.judge_names import judge_criterion, split_judge

NOISE_PATTERN = r"^.+:-?\d+(\.\d+)?$"
NOISE_DESCRIPTION = "pink:SNR, or a recording and its SNR in dB (cafe.wav:5), laid over every clip."


class PromptSet(StrictModel):
    """A named set of prompts that models are asked."""

    corpus: str = Field(description="Manifest, folder, hf:…, preset:ID or organism:NAME.")
    harmful: bool = Field(False, description="Whether its rate is a JSR, or over-refusal.")
    where: dict[str, list[str]] = Field(default_factory=dict, description="Keep only samples with these column values.")
    noise: str | None = Field(None, pattern=NOISE_PATTERN, description=NOISE_DESCRIPTION)
    judge: str | None = Field(None, description="Of this benign set's replies instead of the study's: its usefulness.")
    instruction: str | None = Field(None, description="Typed beside these prompts instead of the study's.")
    limit: int | None = Field(None, ge=1, description="Most new tokens of a reply to these instead of the study's.")

    @model_validator(mode="after")
    def _check_judge(self) -> PromptSet:
        if self.judge is not None:
            split_judge(self.judge)
            if self.harmful:
                raise ValueError(
                    f"judge: {self.judge!r} is of one set, and rates on harmful prompts are the study's judge's"
                )
        return self


class Evaluation(StrictModel):
    """How models are asked and judged; the same for every model and arm (`protocol: uniform`)."""

    protocol: Literal["uniform", "published"] = Field(
        "uniform", description="published: each family as in the paper; one model a study, and no comparing of models."
    )
    judge: str = Field("exact", description="KIND or KIND:REF, see `judges`; the rates are its.")
    also: tuple[str, ...] = Field((), description="Further judges of the same replies, for how far they agree.")
    refusals: tuple[str, ...] = Field(
        ("i cannot help with that",), description="Of the exact judge: the replies that are refusals."
    )
    limit: int | None = Field(None, ge=1, description="Most new tokens a reply may have; `reply_limit` where not said.")
    instruction: str | None = Field(None, description="Text typed beside every prompt.")
    systems: dict[str, str | None] = Field(
        {"plain": None}, description="Name -> system text, null: none.  The first is the undefended one."
    )
    modalities: tuple[Modality, ...] = Field(("audio", "text"), description="How prompts are asked: spoken, typed.")
    curve: tuple[str, ...] = Field((), description="Sets asked (spoken, first system) at every step, not only at last.")
    comprehension: Comprehension | None = Field(
        None, description="Tell beside the rates whether harmful requests were heard, and whether replies are to them."
    )

    @model_serializer(mode="wrap")
    def _omit_unset_comprehension(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without comprehension where it is off: results of studies that know nothing of it keep their hash."""
        values: dict[str, Any] = handler(self)
        return values if self.comprehension is not None else {k: v for k, v in values.items() if k != "comprehension"}

    @model_validator(mode="after")
    def _check_evaluation(self) -> Evaluation:
        for judge in (self.judge, *self.also):
            split_judge(judge)
            if judge_criterion(judge) == "use":
                raise ValueError(f"the judge {judge} is of usefulness: give it to a benign set, as its judge")
        if self.protocol == "published" and self.model_fields_set & {"instruction", "limit"}:
            raise ValueError("protocol: published brings its own instruction and limit; leave these out")
        check_distinct("judge and also", (self.judge, *self.also))
        if not self.systems:
            raise ValueError("systems: at least one is needed; the first is the undefended one")
        check_distinct("modalities", self.modalities)
        return self


def default_max_new_tokens(model: str) -> int:
    """Most new tokens of a model's replies where nothing is said: an organism's are single sentences."""
    return 12 if model.startswith("organism:") else 256
