"""Defenses during training: safety mixing, constrained first tokens (Qi et al. 2024), and a canary that stops training
early."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from undersong.evaluation.contrast_sets import ContrastSets
from undersong.research.defenses.context import DefenseContext
from undersong.settings.presets import manner_key
from undersong.stages.context import adapter_step_folder
from undersong.stages.training import StudyArm, TrainingExtras, train_adapter, training_recipe, training_targets
from undersong.store.store import Artifact
from undersong.study.defenses import CanarySettings, DefenseSettings, SafetyMixingSettings
from undersong.study.prompt_requests import margin_texts
from undersong.tuning.config import PUBLISHED_BETAS

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel
    from undersong.tuning.canary import CanaryCheck
    from undersong.tuning.safety_mixing import SafetyMixing as Mixed


def train_with_defense(context: DefenseContext, arm: StudyArm, defense: DefenseSettings) -> Artifact:
    """Train an arm as the study does, with the changes of a defense."""
    recipe_overrides = {}
    if defense.constrained_sft:
        recipe_overrides["betas"] = list(
            defense.constrained_sft if isinstance(defense.constrained_sft, tuple) else PUBLISHED_BETAS
        )
    return _train_arm(
        context, arm, recipe_overrides, _training_extras(context, arm, defense) if defense.corpora else None
    )


def retune(context: DefenseContext, arm: StudyArm, adapter: Artifact, step: int) -> Artifact:
    """Train a second time on top of the adapter of `step`, on the samples of `arm`, as the study trains.

    Args:
        context: Context of the base.
        arm: Arm whose samples are used.
        adapter: The adapter to start from.
        step: Step of the adapter.
    """

    def make(_model: AudioModel) -> dict[str, Any]:
        return {"start": adapter_step_folder(adapter, step)}

    return _train_arm(context, arm, {}, TrainingExtras({"start_step": step}, {"start": adapter}, (), make))


def _train_arm(
    context: DefenseContext, arm: StudyArm, recipe_overrides: dict[str, Any], extras: TrainingExtras | None
) -> Artifact:
    """Train as the study does, with overrides of the recipe and the extras of a defense."""
    study, pool = context.study, context.record.pool
    recipe, system_text = training_recipe(study.tuning) | recipe_overrides, study.system_text(study.undefended_system)
    return train_adapter(
        context.run_context,
        arm,
        pool,
        context.audio_features(pool),
        recipe,
        system_text,
        study.tuning.target_column,
        extras,
    )


def last_kept_step(adapter: Artifact, default: int) -> int:
    """Last step that a training kept; it is earlier than `default` if a canary stopped the training."""
    steps = [int(folder.name.removeprefix("step-")) for folder in adapter.location.glob("step-*")]
    return max(steps, default=default)


def _training_extras(context: DefenseContext, arm: StudyArm, defense: DefenseSettings) -> TrainingExtras:
    assert arm.modality is not None
    corpora = {role: context.record.defense_corpora[ref] for role, ref in defense.corpora.items()}
    config: dict[str, Any] = {}
    if defense.safety_mixing:
        mixing_settings = defense.safety_mixing.model_dump(exclude={"corpus"})
        config["mixing"] = {**mixing_settings, "manner": manner_key(context.prompt_settings(arm.modality))}
    if defense.canary:
        config["canary"] = {
            **_canary_key(defense.canary),
            "asked": context.contrast_config,
        }

    def make(model: AudioModel) -> dict[str, Any]:
        train_options: dict[str, Any] = {}
        if defense.safety_mixing:
            train_options["mixing"] = _safety_mixing(context, arm, defense.safety_mixing)
        if defense.canary:
            train_options["watch"] = _canary_watch(context, arm, defense.canary, model)
        return train_options

    inputs = {role: corpus.artifact for role, corpus in corpora.items()}
    return TrainingExtras(config, inputs, tuple(context.audio_features(corpus) for corpus in corpora.values()), make)


def _safety_mixing(context: DefenseContext, arm: StudyArm, settings: SafetyMixingSettings) -> Mixed:
    from undersong.tuning.safety_mixing import SafetyMixing as Mixed

    assert arm.modality is not None
    prompts = context.prompts(context.record.defense_corpora[settings.corpus], True, [arm.modality])
    if settings.refusal_text is not None:
        targets = [settings.refusal_text] * len(prompts)
    else:
        targets = training_targets([prompt.sample for prompt in prompts], settings.refusal_column)
    return Mixed(prompts, targets, settings.share)


def _canary_key(settings: CanarySettings) -> dict[str, Any]:
    """Settings that the training depends on; a margin that is not limited is not in the key of older artifacts."""
    unset = {"max_margin_loss"} if settings.max_margin_loss is None else set()
    return settings.model_dump(exclude={"harmful", "benign"} | unset)


def _canary_watch(context: DefenseContext, arm: StudyArm, settings: CanarySettings, model: AudioModel) -> CanaryCheck:
    """Canary check in the training modality, of a model that is still the base; its margin is where losses begin."""
    from undersong.tuning.canary import CanaryCheck

    assert arm.modality is not None
    harmful = context.prompts(context.record.defense_corpora[settings.harmful], True, [arm.modality])
    benign = []
    if settings.benign is not None:
        benign = context.prompts(context.record.defense_corpora[settings.benign], False, [arm.modality])
    contrast_prompts = ContrastSets(harmful, benign)
    limits = {"jsr": settings.max_jsr}
    if settings.max_over_refusal is not None:
        limits["over_refusal"] = settings.max_over_refusal
    evaluator = context.reply_evaluator()
    if settings.max_margin_loss is None:
        return CanaryCheck(lambda: evaluator.measure_rates(model, contrast_prompts), limits, settings.every_steps)
    from undersong.evaluation.refusal_margin import mean_refusal_margin

    margin_settings = margin_texts(context.study)

    def margin() -> float:
        return mean_refusal_margin(model, harmful, margin_settings, "max_margin_loss")

    base_margin = margin()

    def measure() -> dict[str, float]:
        loss = base_margin - margin()
        return {**evaluator.measure_rates(model, contrast_prompts), "margin_loss": loss}

    return CanaryCheck(measure, limits | {"margin_loss": settings.max_margin_loss}, settings.every_steps)
