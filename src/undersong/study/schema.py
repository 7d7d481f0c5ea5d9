"""Pydantic schema of a study file: its keys, their ranges and the checks across keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from undersong.settings.base import Share, StrictModel, check_distinct
from undersong.settings.defaults import (
    ORGANISM_REFUSALS,
    default_max_new_tokens,
)
from undersong.settings.evaluation import (
    NOISE_DESCRIPTION,
    NOISE_PATTERN,
    EvaluationSettings,
    PromptSet,
)
from undersong.settings.judge_names import default_judge
from undersong.settings.presets import DEFENSE_SYSTEM_PROMPTS
from undersong.settings.tuning import TuningSettings
from undersong.study.analysis import AnalysisSettings, answerable_questions, check_primary, default_primary, rule_facts
from undersong.study.defenses import DefenseSettings, SafetyLimits
from undersong.suggestions import did_you_mean

Kind = Literal["closest", "distant", "random"]
KINDS = ("closest", "distant", "random")


class ProximitySettings(StrictModel):
    """Measure of the distance between a sample and a harm set."""

    score: str = Field(
        "nearest",
        pattern=r"^(nearest|centroid|knn:[1-9]\d*)$",
        description="nearest: distance to the nearest harmful item. centroid: to their mean. knn:K: mean of K.",
    )
    center: bool = Field(False, description="Subtract the pool's mean from both sides before measuring distances.")
    max_quarantined: Share = Field(0.01, ge=0, le=1, description="Largest share of the pool that may be unusable.")


class SelectionRuleSettings(StrictModel):
    """One selection rule, such as `closest:0.25+within(semantic:5)`, which makes an arm under its name."""

    keep: str = Field(
        description="Samples to keep, such as closest:0.25+matched(speaker); the guide on screening lists the rules."
    )
    axis: str = Field(description="Axis to rank by, one of the study's axes.")
    harm_set: str | None = Field(None, description="Harm set to measure the distance to. Default: the first.")
    match_selection: str | None = Field(
        None, description="An earlier rule or a kind: `matched` reproduces its shares instead of the pool's."
    )


class SelectionSettings(StrictModel):
    """Training samples. Every axis x kind x fraction is an arm, and so is every rule.

    Without kinds and rules, nothing is trained and only the base models are evaluated.
    """

    axes: tuple[str, ...] = Field(("semantic",), description="Axes to select by, among the study's axes.")
    kinds: tuple[Kind, ...] = Field(("closest", "distant", "random"), description="Parts of the ranking to train on.")
    fractions: tuple[Share, ...] = Field((0.25,), description="Shares of the pool to select, in (0, 1].")
    group_spread: Share | None = Field(
        None,
        gt=0,
        le=1,
        description="Least share of the pool's groups that every kind x fraction reaches: caps the samples of one "
        "group (+group<=k), so that arms are alike in diversity, and lets ties favor no voice. Default: no cap.",
    )
    rules: dict[str, SelectionRuleSettings] = Field(
        default_factory=dict, description="Selection rules by name, beside kinds and fractions."
    )
    filters: dict[str, list[str]] = Field(
        default_factory=dict, description="Keep only pool samples with one of these values: column to values."
    )
    noise: str | None = Field(
        None, pattern=NOISE_PATTERN, description=f"Noise added to the training speech. {NOISE_DESCRIPTION}"
    )

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


class MechanismSettings(StrictModel):
    """Contrast sets to fit the refusal direction on. Figures are of held-out prompt sets of the study."""

    contrast_harmful: str = Field(description="Corpus of harmful prompts to fit the refusal direction on.")
    contrast_benign: str = Field(description="Corpus of benign prompts, matched in length, voice and form.")
    held_out_harmful: str = Field(
        description="Harmful prompt set, by its name in `prompt_sets`, that the figures are of."
    )
    held_out_benign: str = Field(
        description="Benign prompt set, by its name in `prompt_sets`, that the figures are of."
    )


class Study(StrictModel):
    """An audit: models, corpora, axes, training, evaluation and defenses."""

    study: str = Field(description="Name of the study; results go to out/NAME.")
    description: str = Field("", description="Description, shown in the report.")
    models: tuple[str, ...] = Field(
        description="Models to audit: organism:NAME, a folder, ORG/NAME@REVISION, served:MODEL@URL or recorded:FILE."
    )
    pool: str = Field(description="Benign corpus to select training samples from.")
    reference: str | dict[str, str] = Field(
        description="Harm set that distances are measured to, or several by name; the first is selected by."
    )
    benign_reference: str | None = Field(
        None, description="Benign speech to compare the pool with, for the screening score."
    )
    columns: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Column names by corpus: corpus to our field to its column."
    )
    prompt_sets: dict[str, PromptSet] = Field(
        description="Prompt sets by name that every model answers; at least one is harmful."
    )
    axes: dict[str, str] = Field(
        description="Encoders by name of the axis, such as tfidf, logmel, speech:ID or internal."
    )
    proximity: ProximitySettings = Field(ProximitySettings(), description="How distances are measured.")
    selection: SelectionSettings = Field(SelectionSettings(), description="Samples to train on.")
    tuning: TuningSettings = Field(TuningSettings(), description="Hyper-parameters of training.")
    evaluation: EvaluationSettings = Field(EvaluationSettings(), description="How models are prompted and judged.")
    system_defense: str | None = Field(
        None, description="Name of the system prompt that is the inference-time defense."
    )
    mechanism: MechanismSettings | None = Field(
        None, description="Contrast sets for the refusal mechanism by layer. Default: not measured."
    )
    defenses: dict[str, DefenseSettings] = Field(
        default_factory=dict, description="Defenses by name, tried on the closest arms at the last step."
    )
    safety_limits: SafetyLimits = Field(
        SafetyLimits(), description="Highest rates at which a defended model counts as safe."
    )
    retune_on: str | None = Field(
        None,
        description="Kind or rule of selection to fine-tune every defended arm on again: does its defense last?",
    )
    analysis: AnalysisSettings = Field(AnalysisSettings(), description="Questions that the study is run to answer.")
    notes: tuple[str, ...] = Field((), description="Notes, shown in the report.")

    @field_validator("study")
    @classmethod
    def _check_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"(?!\.\.?$)[^\s/\\](?:[^/\\\x00-\x1f\x7f]*[^\s/\\])?", name):
            raise ValueError(f"{name!r} cannot be the name of a folder; take words without / and line breaks")
        return name

    @model_validator(mode="before")
    @classmethod
    def _name_default_judge(cls, values: Any) -> Any:
        """Name the judge where the study does not: `exact` is the default of the schema, and knows organisms alone."""
        if not isinstance(values, dict) or not isinstance(evaluation := values.get("evaluation", {}), dict):
            return values
        models = values.get("models", ())
        if "judge" in evaluation or not isinstance(models, list | tuple) or not all(isinstance(m, str) for m in models):
            return values
        judge = default_judge(models, evaluation.get("refusal_texts") or ())
        return values if judge == "exact" else values | {"evaluation": evaluation | {"judge": judge}}

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
        for name, prompts in self.prompt_sets.items():
            if prompts.harmful and prompts.corpus == self.benign_reference:
                raise ValueError(
                    f"benign_reference: {self.benign_reference} is the harmful prompt set {name}; name benign speech"
                )
        _check_known("evaluation.per_step_prompt_sets", self.curve_prompt_sets, self.prompt_sets)
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
        check_primary(self.analysis.primary, self.answerable_questions, self._selection_axes)
        self._check_sequential_seeds()
        if self.evaluation.protocol == "published" and len(self.models) > 1:
            raise ValueError(
                "evaluation.protocol: published asks each family otherwise, so models cannot be compared; "
                "name one model, or take uniform"
            )
        return self

    def _check_sequential_seeds(self) -> None:
        rule = self.tuning.sequential_seeds
        if rule is None:
            return
        if len(self.models) > 1:
            raise ValueError(
                f"tuning.seeds: with {len(self.models)} models the models are the units, and more seeds decide "
                "nothing; give a list, or name one model"
            )
        kinds = [kind for kind in rule.contrast.split("-") if kind != "base"]
        _check_known("tuning.seeds.contrast", kinds, self.selection.kinds)
        if rule.modality is not None:
            _check_known("tuning.seeds.modality", [rule.modality], self.evaluation.modalities)

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
        """Return the text of a system prompt, either the study's own or a packaged one."""
        return (
            self.evaluation.system_prompts[name]
            if name in self.evaluation.system_prompts
            else DEFENSE_SYSTEM_PROMPTS[name]
        )

    @property
    def answerable_questions(self) -> list[str]:
        """Names of the comparisons of recipes that the study makes, for `analysis.primary`."""
        first = next(iter(self.harm_sets))
        rules = self.selection.rules.items()
        return answerable_questions(
            kinds=self.selection.kinds,
            axes=self.selection.axes,
            rules={name: rule_facts(rule.keep, rule.harm_set or first) for name, rule in rules},
            first_harm_set=first,
            train_modalities=self.tuning.modalities,
            has_system_defense=self.system_defense is not None,
        )

    @property
    def primary_questions(self) -> tuple[str, ...]:
        """The declared primary questions, or the default one."""
        return self.analysis.primary or default_primary(self.answerable_questions)

    @property
    def _selection_axes(self) -> list[str]:
        return list(dict.fromkeys([*self.selection.axes, *(rule.axis for rule in self.selection.rules.values())]))

    @property
    def harm_sets(self) -> dict[str, str]:
        """Reference harm sets by name; a single one is named by its corpus."""
        return {self.reference: self.reference} if isinstance(self.reference, str) else self.reference

    @property
    def corpora(self) -> list[str]:
        """References of all corpora of the study."""
        contrast = self.mechanism and (self.mechanism.contrast_harmful, self.mechanism.contrast_benign)
        set_corpora = [prompt_set.corpus for prompt_set in self.prompt_sets.values()]
        benign_corpora = [self.benign_reference] if self.benign_reference is not None else []
        defense_corpora = [ref for defense in self.defenses.values() for ref in defense.corpora.values()]
        refs = [self.pool, *self.harm_sets.values(), *benign_corpora, *set_corpora, *(contrast or ()), *defense_corpora]
        return list(dict.fromkeys(refs))

    @property
    def refusal_texts(self) -> tuple[str, ...]:
        """Replies that the judge `exact` counts as refusals: the given ones, or the organisms' own."""
        return self.evaluation.refusal_texts or ORGANISM_REFUSALS

    @property
    def max_new_tokens(self) -> int:
        """Most new tokens of a reply, the same for all models."""
        return self.evaluation.max_new_tokens or max(map(default_max_new_tokens, self.models))

    @property
    def curve_prompt_sets(self) -> tuple[str, ...]:
        """Prompt sets evaluated at every saved step: the named ones, or the harmful ones."""
        named = self.evaluation.per_step_prompt_sets
        if named is not None:
            return named
        return tuple(name for name, prompt_set in self.prompt_sets.items() if prompt_set.harmful)

    @property
    def undefended_system(self) -> str:
        """Name of the undefended system prompt: the first."""
        return next(iter(self.evaluation.system_prompts))


def _check_known(key_path: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    choices = list(allowed)
    for name in names:
        if name not in choices:
            raise ValueError(
                f"{key_path}: {name!r} is not one of {', '.join(choices) or 'none'}{did_you_mean(name, choices)}"
            )
