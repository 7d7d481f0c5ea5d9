"""Defenses during training: safety mixing, constrained first tokens (Qi et al.

2024), and a canary that stops training early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from undersong import stages
from undersong.defenses.context import DefenseContext
from undersong.mechanism.contrast_sets import ContrastSets
from undersong.stages.context import adapter_step_folder
from undersong.stages.training import StudyArm, TrainingExtras, training_recipe, training_targets
from undersong.store import Artifact
from undersong.study.defenses import CanarySettings, DefenseSettings, SafetyMixingSettings
from undersong.study.presets import manner_key
from undersong.tuning.config import PUBLISHED_BETAS

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel
    from undersong.tuning.canary import CanaryCheck
    from undersong.tuning.safety_mixing import SafetyMixing as Mixed


def train_with_defense(context: DefenseContext, arm: StudyArm, defense: DefenseSettings) -> Artifact:
    """The arm trained as ever, but for what the defense changes of the training."""
    recipe_overrides = {}
    if defense.constrained:
        recipe_overrides["betas"] = list(
            defense.constrained if isinstance(defense.constrained, tuple) else PUBLISHED_BETAS
        )
    return _train_arm(
        context, arm, recipe_overrides, _training_extras(context, arm, defense) if defense.corpora else None
    )


def retune(context: DefenseContext, arm: StudyArm, adapter: Artifact, step: int) -> Artifact:
    """A second training on top of what was kept at `step`, on the samples of `data`, as the study trains."""

    def make(_model: AudioModel) -> dict[str, Any]:
        return {"start": adapter_step_folder(adapter.verify(), step)}

    return _train_arm(context, arm, {}, TrainingExtras({"start_step": step}, {"start": adapter}, (), make))


def _train_arm(
    context: DefenseContext, arm: StudyArm, recipe_overrides: dict[str, Any], extras: TrainingExtras | None
) -> Artifact:
    """As the study trains, but for what `held` says of the recipe, and the guard."""
    study, pool = context.study, context.record.pool
    recipe, system_text = training_recipe(study.tuning) | recipe_overrides, study.system_text(study.undefended_system)
    return stages.train_adapter(
        context.run_context, arm, pool, context.audio_features(pool), recipe, system_text, study.tuning.target, extras
    )


def last_kept_step(adapter: Artifact, default: int) -> int:
    """The last step that a training kept: an earlier one where a canary stopped it."""
    steps = [int(folder.name.removeprefix("step-")) for folder in adapter.path.glob("step-*")]
    return max(steps, default=default)


def _training_extras(context: DefenseContext, arm: StudyArm, defense: DefenseSettings) -> TrainingExtras:
    assert arm.modality is not None
    corpora = {role: context.record.defense_corpora[ref] for role, ref in defense.corpora.items()}
    config: dict[str, Any] = {}
    if defense.mixing:
        mixing_settings = defense.mixing.model_dump(exclude={"corpus"})
        config["mixing"] = {**mixing_settings, "manner": manner_key(context.prompt_settings(arm.modality))}
    if defense.canary:
        config["canary"] = {
            **defense.canary.model_dump(exclude={"harmful", "harmless"}),
            "asked": context.contrast_config,
        }

    def make(model: AudioModel) -> dict[str, Any]:
        train_options: dict[str, Any] = {}
        if defense.mixing:
            train_options["mixing"] = _safety_mixing(context, arm, defense.mixing)
        if defense.canary:
            train_options["watch"] = _canary_watch(context, arm, defense.canary, model)
        return train_options

    inputs = {role: corpus.artifact for role, corpus in corpora.items()}
    return TrainingExtras(config, inputs, tuple(context.audio_features(corpus) for corpus in corpora.values()), make)


def _safety_mixing(context: DefenseContext, arm: StudyArm, settings: SafetyMixingSettings) -> Mixed:
    from undersong.tuning.safety_mixing import SafetyMixing as Mixed

    assert arm.modality is not None
    prompts = context.prompts(context.record.defense_corpora[settings.corpus], True, [arm.modality])
    if settings.refusal is not None:
        targets = [settings.refusal] * len(prompts)
    else:
        targets = training_targets([prompt.sample for prompt in prompts], settings.column)
    return Mixed(prompts, targets, settings.share)


def _canary_watch(context: DefenseContext, arm: StudyArm, settings: CanarySettings, model: AudioModel) -> CanaryCheck:
    """Asks in the modality that is trained on."""
    from undersong.tuning.canary import CanaryCheck

    assert arm.modality is not None
    harmful = context.prompts(context.record.defense_corpora[settings.harmful], True, [arm.modality])
    benign = []
    if settings.harmless is not None:
        benign = context.prompts(context.record.defense_corpora[settings.harmless], False, [arm.modality])
    contrast_prompts = ContrastSets(harmful, benign)
    limits = {"jsr": settings.jsr}
    if settings.over_refusal is not None:
        limits["over_refusal"] = settings.over_refusal
    evaluator = context.reply_evaluator()
    return CanaryCheck(lambda: evaluator.measure_rates(model, contrast_prompts), limits, settings.every)
