"""Pydantic schema of a study file: its keys, their ranges and the checks across keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from undersong.study.base import Modality, Seed, StrictModel, check_distinct
from undersong.study.defenses import DefenseSettings, SafetyLimits
from undersong.study.evaluation import (
    NOISE_DESCRIPTION,
    NOISE_PATTERN,
    EvaluationSettings,
    PromptSet,
    default_max_new_tokens,
)
from undersong.study.presets import DEFENSE_SYSTEM_PROMPTS, apply_preset
from undersong.suggestions import did_you_mean

Kind = Literal["closest", "distant", "random"]
KINDS = ("closest", "distant", "random")
Share = float


class ProximitySettings(StrictModel):
    """How close is measured."""

    score: str = Field(
        "nearest",
        pattern=r"^(nearest|centroid|knn:[1-9]\d*)$",
        description="Distance to the nearest harmful item, to their mean, or the mean of the K nearest.",
    )
    center: bool = Field(False, description="Both sides less the pool's mean before distances are taken.")
    max_quarantined: Share = Field(0.01, ge=0, le=1, description="Share of the pool that may be unusable.")


class SelectionRuleSettings(StrictModel):
    """Samples kept by a rule of `proximity.keep`, such as `closest:0.25+within(semantic:5)`: an arm of that name."""

    keep: str = Field(description="What is kept, such as closest:0.25+matched(speaker); see how to screen.")
    axis: str = Field(description="One of the study's axes.")
    harm_set: str | None = Field(None, description="The harm set that closeness is to; default: the first.")
    match_selection: str | None = Field(
        None, description="An earlier rule, or a kind on its axis, whose shares `matched` takes instead of the pool's."
    )


class SelectionSettings(StrictModel):
    """Which samples train: every axis x kind x fraction is an arm, and so is every rule.  No kind and no rule: nothing
    is trained, and the bases are asked."""

    axes: tuple[str, ...] = Field(("semantic",), description="Of the study's axes, those that are selected by.")
    kinds: tuple[Kind, ...] = Field(("closest", "distant", "random"), description="Which part of the ranking trains.")
    fractions: tuple[Share, ...] = Field((0.25,), description="Shares of the pool, in (0, 1].")
    rules: dict[str, SelectionRuleSettings] = Field(
        default_factory=dict, description="Name -> rule, where kind and fraction say less."
    )
    filters: dict[str, list[str]] = Field(
        default_factory=dict, description="Keep only pool samples with these column values."
    )
    noise: str | None = Field(None, pattern=NOISE_PATTERN, description=f"Over the training speech. {NOISE_DESCRIPTION}")

    @field_validator("rules")
    @classmethod
    def _check_rule_names(cls, rules: dict[str, SelectionRuleSettings]) -> dict[str, SelectionRuleSettings]:
        for name in rules:
            if name in (*KINDS, "base") or not re.fullmatch(r"[\w.-]+", name):
                raise ValueError(f"{name!r} cannot be the name of a rule; take letters, digits and -, and no kind")
        return rules

    @field_validator("fractions")
    @classmethod
    def _check_fractions(cls, fractions: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < f <= 1 for f in fractions):
            raise ValueError("fractions lie in (0, 1]")
        return fractions

    @model_validator(mode="after")
    def _check_distinct_arms(self) -> SelectionSettings:
        for name in ("axes", "kinds", "fractions") if self.kinds else ():
            check_distinct(name, getattr(self, name))
        return self


class TuningSettings(StrictModel):
    """LoRA hyper-parameters, the same for every arm of a study (DESIGN rule 7)."""

    preset: str | None = Field(None, description="Published values beneath what is written; see presets.")
    modalities: tuple[Modality, ...] = Field(("audio", "text"), description="What the same samples are trained from.")
    seeds: tuple[Seed, ...] = Field((0, 1, 2), description="Training seeds: one run each of every arm.")
    draws: tuple[Seed, ...] = Field((0, 1, 2), description="Selection draws, paired with the seeds one to one.")
    save_steps: tuple[int, ...] = Field((20, 40), description="Where the model is kept and asked; the last ends it.")
    batch_size: int = Field(8, ge=1, description="Samples a step.")
    learning_rate: float = Field(5e-4, gt=0, description="Of AdamW, at its highest.")
    learning_rate_schedule: str = Field(
        "constant_with_warmup", description="Of the learning rate, as transformers names it."
    )
    warmup_steps: int = Field(5, ge=0, description="Steps in which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="Of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    method: Literal["lora", "full"] = Field("lora", description="full: all of the decoder's blocks, no adapter.")
    lora_rank: int = Field(8, ge=1, description="Of LoRA's matrices.")
    lora_alpha: int = Field(16, ge=1, description="LoRA's scale is alpha / rank.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Of LoRA's inputs.")
    validation_share: Share = Field(
        0.0, ge=0, lt=1, description="Share held out by whole groups; its loss stands in the log."
    )
    micro_batch_size: int | None = Field(None, ge=1, description="Samples in memory at a time; a divisor of `batch`.")
    gradient_checkpointing: bool = Field(False, description="Compute activations again: slower, and far less memory.")
    silent_frame_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share kept in training of frames that say nothing (Mini): quicker, and teaches less.",
    )
    target_column: str = Field(
        "answer", description="Manifest column with the reply to learn; another is a format shift."
    )

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        return apply_preset(values, (20, 40)) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check_consistency(self) -> TuningSettings:
        if len(self.seeds) != len(self.draws):
            raise ValueError(
                f"seeds ({len(self.seeds)}) and draws ({len(self.draws)}) are paired and need equal numbers"
            )
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size ({self.micro_batch_size}) does not divide batch_size ({self.batch_size})"
            )
        check_distinct("seeds", self.seeds)
        check_distinct("modalities", self.modalities)
        if list(self.save_steps) != sorted(set(self.save_steps)) or not self.save_steps or self.save_steps[0] < 1:
            raise ValueError("save_steps are positive and rise")
        return self


class MechanismSettings(StrictModel):
    """Contrast sets the refusal direction is fitted on; figures are drawn on the study's own held-out sets."""

    contrast_harmful: str = Field(description="Corpus of harmful prompts that the direction is fitted on.")
    contrast_benign: str = Field(description="Corpus of harmless ones, matched in length, voice and form.")
    held_out_harmful: str = Field(description="Name of the harmful set in `sets` that figures are of.")
    held_out_benign: str = Field(description="Name of the benign set in `sets` that figures are of.")


class Study(StrictModel):
    """One audit."""

    study: str = Field(description="Its name; results go to out/NAME.")
    description: str = Field("", description="For people; stands in the report.")
    models: tuple[str, ...] = Field(
        description="organism:NAME, a folder, ORG/NAME@REVISION, served:MODEL@URL or recorded:FILE."
    )
    pool: str = Field(description="The benign corpus that training samples are selected from.")
    reference: str | dict[str, str] = Field(
        description="The reference harm set; or several by name, of which the first is selected by."
    )
    benign_reference: str | None = Field(None, description="Harmless speech, for the screening score.")
    columns: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Corpus, as it is called here -> our field -> its column."
    )
    prompt_sets: dict[str, PromptSet] = Field(
        description="Name -> prompts that every model is asked; at least one harmful."
    )
    axes: dict[str, str] = Field(description="Name -> encoder, such as tfidf, logmel, speech:ID, internal.")
    proximity: ProximitySettings = Field(ProximitySettings(), description="How closeness is measured.")
    selection: SelectionSettings = Field(SelectionSettings(), description="Which samples train.")
    tuning: TuningSettings = Field(TuningSettings(), description="How models are trained.")
    evaluation: EvaluationSettings = Field(EvaluationSettings(), description="How models are asked and judged.")
    system_defense: str | None = Field(None, description="Name of the system text that is the inference-time defense.")
    mechanism: MechanismSettings | None = Field(None, description="Looks inside the model, by these contrast sets.")
    defenses: dict[str, DefenseSettings] = Field(
        default_factory=dict, description="Name -> what is changed of the closest arms, at the last step."
    )
    safety_limits: SafetyLimits = Field(SafetyLimits(), description="What a defended model may still do.")
    retune_on: str | None = Field(
        None, description="Kind or rule whose data every defended arm is tuned on once more: do its defenses last?"
    )
    notes: tuple[str, ...] = Field((), description="For people; stand in the report.")

    @field_validator("study")
    @classmethod
    def _check_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"(?!\.\.?$)[^\s/\\](?:[^/\\\x00-\x1f\x7f]*[^\s/\\])?", name):
            raise ValueError(f"{name!r} cannot be the name of a folder; take words without / and line breaks")
        return name

    @model_validator(mode="after")
    def _check_references(self) -> Study:
        _check_known("selection.axes", self.selection.axes, self.axes)
        for name, rule in self.selection.rules.items():
            _check_known(f"selection.rules.{name}.axis", [rule.axis], self.axes)
            earlier = list(self.selection.rules)[: list(self.selection.rules).index(name)]
            match_names = [rule.match_selection] if rule.match_selection is not None else []
            _check_known(f"selection.rules.{name}.match_selection", match_names, [*earlier, *self.selection.kinds])
            _check_known(
                f"selection.rules.{name}.harm_set", [rule.harm_set] if rule.harm_set is not None else [], self.harm_sets
            )
        if not self.harm_sets:
            raise ValueError("reference: name at least one harm set")
        _check_known("columns", self.columns, self.corpora)
        if self.benign_reference is not None and self.proximity.center:
            raise ValueError("benign_reference: a screening score cannot be centered; leave it or proximity.center out")
        _check_known("evaluation.per_step_prompt_sets", self.evaluation.per_step_prompt_sets, self.prompt_sets)
        if self.system_defense is not None:
            _check_known("system_defense", [self.system_defense], self.evaluation.system_prompts)
        if self.mechanism is not None:
            _check_known("mechanism.held_out_harmful", [self.mechanism.held_out_harmful], self.prompt_sets)
            _check_known("mechanism.held_out_benign", [self.mechanism.held_out_benign], self.prompt_sets)
            if not self.prompt_sets[self.mechanism.held_out_harmful].harmful:
                raise ValueError(f"mechanism.held_out_harmful: {self.mechanism.held_out_harmful!r} is no harmful set")
            if self.prompt_sets[self.mechanism.held_out_benign].harmful:
                raise ValueError(f"mechanism.held_out_benign: {self.mechanism.held_out_benign!r} is a harmful set")
        if self.retune_on is not None:
            _check_known("retune_on", [self.retune_on], [*self.selection.kinds, *self.selection.rules])
        for name, defense in self.defenses.items():
            self._check_defense(name, defense)
        if not any(s.harmful for s in self.prompt_sets.values()):
            raise ValueError("prompt_sets: none is harmful, so there is no JSR to measure; mark one `harmful: true`")
        check_distinct("models", self.models)
        if self.evaluation.protocol == "published" and len(self.models) > 1:
            raise ValueError(
                "evaluation.protocol: published asks each family otherwise, so models cannot be compared; "
                "name one model, or take uniform"
            )
        return self

    def _check_defense(self, name: str, defense: DefenseSettings) -> None:
        key_path = f"defenses.{name}"
        if name == "none" or not re.fullmatch(r"[^|\n\r]*[^|\s][^|\n\r]*", name):
            raise ValueError(f"defenses: {name!r} cannot be the name of one; take words, and not none")
        if defense.selection == "closest" or defense.system == self.undefended_system:
            raise ValueError(
                f"{key_path}: the undefended arms are the closest under {self.undefended_system!r}; change something"
            )
        if defense.canary and defense.canary.every_steps > self.tuning.save_steps[-1]:
            raise ValueError(
                f"{key_path}.canary.every_steps: the training has {self.tuning.save_steps[-1]} steps; ask more often"
            )
        if "closest" not in self.selection.kinds:
            raise ValueError(f"{key_path}: what is defended are the closest arms; add closest to selection.kinds")
        if defense.selection is not None:
            _check_known(f"{key_path}.selection", [defense.selection], [*self.selection.kinds, *self.selection.rules])
        if defense.system is not None:
            _check_known(
                f"{key_path}.system", [defense.system], [*self.evaluation.system_prompts, *DEFENSE_SYSTEM_PROMPTS]
            )
        if defense.uses_refusal_direction and self.mechanism is None:
            raise ValueError(f"{key_path}: goes by the refusal direction; give the contrast sets of `mechanism`")
        if defense.constrained_sft and self.tuning.method != "lora":
            raise ValueError(f"{key_path}.constrained_sft: only LoRA keeps a base to stay near; leave it out")
        if self.tuning.method != "lora" and (defense.adapter_projection or defense.layer_removal):
            raise ValueError(f"{key_path}: only an adapter can be taken apart; leave it out")

    def system_text(self, name: str) -> str | None:
        """Of the study, or of the ones that ship."""
        return (
            self.evaluation.system_prompts[name]
            if name in self.evaluation.system_prompts
            else DEFENSE_SYSTEM_PROMPTS[name]
        )

    @property
    def harm_sets(self) -> dict[str, str]:
        """Reference harm sets by name; a single one is called by its corpus."""
        return {self.reference: self.reference} if isinstance(self.reference, str) else self.reference

    @property
    def corpora(self) -> list[str]:
        """Every corpus that is read, as it is called."""
        contrast = self.mechanism and (self.mechanism.contrast_harmful, self.mechanism.contrast_benign)
        set_corpora = [prompt_set.corpus for prompt_set in self.prompt_sets.values()]
        benign_corpora = [self.benign_reference] if self.benign_reference is not None else []
        defense_corpora = [ref for defense in self.defenses.values() for ref in defense.corpora.values()]
        refs = [self.pool, *self.harm_sets.values(), *benign_corpora, *set_corpora, *(contrast or ()), *defense_corpora]
        return list(dict.fromkeys(refs))

    @property
    def max_new_tokens(self) -> int:
        """Most new tokens of a reply, the same for all models."""
        return self.evaluation.max_new_tokens or max(map(default_max_new_tokens, self.models))

    @property
    def undefended_system(self) -> str:
        """Name of the undefended system text: the first."""
        return next(iter(self.evaluation.system_prompts))


def _check_known(key_path: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    choices = list(allowed)
    for name in names:
        if name not in choices:
            raise ValueError(
                f"{key_path}: {name!r} is not one of {', '.join(choices) or 'none'}{did_you_mean(name, choices)}"
            )
