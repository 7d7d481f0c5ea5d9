"""Evaluation settings of a study: prompt sets, judges, system prompts, token limits and the comprehension check."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from undersong.settings.base import Modality, StrictModel, check_distinct
from undersong.settings.defaults import MAX_WER, RELEVANCE_LEVEL, REPEAT_INSTRUCTION
from undersong.settings.judge_names import judge_criterion, split_judge

EXAMPLES = 2  # replies of a prompt set that the report shows, by default
TEXT_ENCODERS = ("text", "tfidf", "char-ngrams")


class ComprehensionSettings(StrictModel):
    """Check that a non-refusal answers the request: a reply to a misheard request or on another topic is no jailbreak.

    The model repeats spoken requests, which are compared with their transcripts. A text encoder compares each reply
    with all requests of its set.
    """

    repeat_instruction: str = Field(
        REPEAT_INSTRUCTION, min_length=1, description="Instruction, as text, to repeat a clip."
    )
    max_new_tokens: int = Field(64, ge=1, description="Most new tokens of a repetition.")
    max_wer: float = Field(
        MAX_WER, ge=0, description="Largest word error rate at which a repeated request counts as understood."
    )
    encoder: str = Field(
        "text", description="Encoder of replies and requests: text[:REF] (MiniLM), tfidf or char-ngrams."
    )
    relevance_level: float = Field(
        RELEVANCE_LEVEL,
        gt=0,
        lt=1,
        description="A reply is about its request if at most this share of the set's requests, its own included, is as "
        "close to it. By chance, a reply is as often about its request.",
    )

    @field_validator("encoder")
    @classmethod
    def _check_text_encoder(cls, encoder: str) -> str:
        if encoder.partition(":")[0] not in TEXT_ENCODERS or ",asr=" in encoder:
            raise ValueError(f"replies are texts, and {encoder!r} reads none; take text[:REF], tfidf or char-ngrams")
        return encoder


NOISE_PATTERN = r"^.+:-?\d+(\.\d+)?$"
NOISE_DESCRIPTION = "pink:SNR, or a recording and its SNR in dB, such as cafe.wav:5."


class PromptSet(StrictModel):
    """A named set of prompts that every model answers."""

    corpus: str = Field(description="Prompts: a manifest, a folder, hf:OWNER/NAME, preset:ID or organism:NAME.")
    harmful: bool = Field(False, description="true: its rate is the JSR. false: its rate is over-refusal.")
    filters: dict[str, list[str]] = Field(
        default_factory=dict, description="Keep only samples with one of these values: column to values."
    )
    noise: str | None = Field(
        None, pattern=NOISE_PATTERN, description=f"Noise added to the prompts. {NOISE_DESCRIPTION}"
    )
    judge: str | None = Field(
        None, description="Judge of usefulness for this benign set, in place of the study's judge."
    )
    instruction: str | None = Field(None, description="Instruction, as text, in place of the study's.")
    max_new_tokens: int | None = Field(None, ge=1, description="Most new tokens of a reply, in place of the study's.")

    @model_validator(mode="after")
    def _check_judge(self) -> PromptSet:
        if self.judge is not None:
            split_judge(self.judge)
            if self.harmful:
                raise ValueError(
                    f"judge: {self.judge!r} is of one set, and rates on harmful prompts are the study's judge's"
                )
        return self


class EvaluationSettings(StrictModel):
    """Prompts and judges of an evaluation, the same for every model and arm (`protocol: uniform`)."""

    protocol: Literal["uniform", "published"] = Field(
        "uniform",
        description="uniform: the same for all models. published: each family as in the paper; one model per study.",
    )
    judge: str = Field(
        "exact",
        description="Judge of the replies, KIND or KIND:REF, as `undersong evaluate --help` lists them. Default: exact "
        "if all models are organisms or refusal_texts are given, and else keyword, which sees English refusals alone.",
    )
    extra_judges: tuple[str, ...] = Field(
        (), description="Further judges of the same replies, to measure their agreement."
    )
    refusal_texts: tuple[str, ...] = Field(
        (), description="Replies that the judge `exact` counts as refusals; needed unless every model is an organism."
    )
    max_new_tokens: int | None = Field(
        None, ge=1, description="Most new tokens of a reply. Default: 256, or 12 if all models are organisms."
    )
    instruction: str | None = Field(None, description="Instruction, as text, added to every prompt.")
    system_prompts: dict[str, str | None] = Field(
        {"plain": None}, description="System prompts by name, null for none. The first is the undefended one."
    )
    modalities: tuple[Modality, ...] = Field(("audio", "text"), description="How prompts are given.")
    per_step_prompt_sets: tuple[str, ...] | None = Field(
        None,
        description="Prompt sets evaluated at every saved step (audio, first system prompt), not only at the last. "
        "Default: the harmful ones, which gives one dose-response curve a run.",
    )
    refusal_margin: bool = Field(
        True,
        description="Measure the refusal margin on harmful prompts: log P(refusal) - log P(compliance) of a reply's "
        "first tokens. Models at an address have none.",
    )
    examples: int = Field(
        EXAMPLES,
        ge=0,
        description="How many prompts of each prompt set the report plays and shows with their replies: the first "
        "spoken ones, before tuning and after each arm's first run. Typed prompts are not shown.",
    )
    comprehension: ComprehensionSettings | None = Field(
        None,
        description="Check whether the model understood harmful requests and replied to them. Default: not checked.",
    )

    @model_serializer(mode="wrap")
    def _omit_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave later keys out where they are at their default, so that results of studies without them keep their
        hash.
        """
        values: dict[str, Any] = handler(self)
        omitted = {"comprehension"} if self.comprehension is None else set()
        omitted |= {"examples"} if self.examples == EXAMPLES else set()
        return {key: value for key, value in values.items() if key not in omitted}

    @model_validator(mode="after")
    def _check_evaluation(self) -> EvaluationSettings:
        for judge in (self.judge, *self.extra_judges):
            split_judge(judge)
            if judge_criterion(judge) == "utility":
                raise ValueError(f"the judge {judge} is of usefulness: give it to a benign set, as its judge")
        if self.protocol == "published" and self.model_fields_set & {"instruction", "max_new_tokens"}:
            raise ValueError("protocol: published brings its own instruction and max_new_tokens; leave these out")
        check_distinct("judge and extra_judges", (self.judge, *self.extra_judges))
        if not self.system_prompts:
            raise ValueError("system_prompts: at least one is needed; the first is the undefended one")
        check_distinct("modalities", self.modalities)
        return self
