"""Fine-tuning of the decoder by LoRA or in full on `transformers.Trainer`, with a proof by hashes that encoder and
projector did not change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback

from undersong.encoders.batching import ProgressCallback
from undersong.models.audio_lm import AudioModel
from undersong.models.decoder_weights import load_decoder, trainable_decoder
from undersong.models.lora import initialize_from_adapter, new_lora
from undersong.models.weights import module_hashes
from undersong.tuning.canary import LOG_PREFIX, CanaryCallback, CanaryCheck
from undersong.tuning.checkpoints import (
    DecoderTrainer,
    MarkCheckpointComplete,
    SaveAdapterCallback,
    SaveStep,
    TrainingDiverged,
    checkpoint_dir,
    last_complete_checkpoint,
)
from undersong.tuning.config import LoraRecipe
from undersong.tuning.constrained import ConstrainedTrainer
from undersong.tuning.distributed import rank, wait_for_all, world_size
from undersong.tuning.frame_pruning import check_prunable, prune_batch
from undersong.tuning.model_card import defense_sentences, model_card
from undersong.tuning.progress import TrainingProgress
from undersong.tuning.reproducibility import sample_order, temporary_seed
from undersong.tuning.safety_mixing import SafetyMixing, mix_safety_pairs
from undersong.tuning.single_device import SingleDeviceArguments
from undersong.tuning.validation import ValidationLossCallback, train_validation_split
from undersong.types import Prompt, UndersongError

CHECKPOINT_STEPS = 50  # steps between checkpoints, which a kill may lose


@dataclass(frozen=True)
class TuningResult:
    """Result of a training besides its adapters: a log line per step, and hashes of the frozen modules before and
    after.
    """

    log: tuple[dict[str, float], ...]
    frozen_before: dict[str, str]
    frozen_after: dict[str, str]
    measurements: tuple[dict[str, float], ...] = ()  # of the canary: step (0: the base) and values
    stop_step: int | None = None  # the step at which a canary limit was exceeded; None: it ran to its end


def finetune_decoder(
    model: AudioModel,
    prompts: Sequence[Prompt],
    targets: Sequence[str],
    recipe: LoraRecipe,
    seed: int,
    save_step: SaveStep,
    resume: Path | None = None,
    mixing: SafetyMixing | None = None,
    watch: CanaryCheck | None = None,
    start: Path | None = None,
    report: ProgressCallback | None = None,
) -> TuningResult:
    """Train a LoRA or the whole decoder on (prompt, target reply) pairs.

    One seed determines sample order, adapter initialization and dropout. In several processes each takes its share of
    every batch, and only the first saves.

    Args:
        model: The base.
        prompts: The prompts.
        targets: The reply to each.
        recipe: The hyper-parameters. `betas` turns on the constrained objective.
        seed: The training seed.
        save_step: Called as `save_step(name, write)` at each of `recipe.steps`; `write(folder)` writes a standard PEFT
            folder.
        resume: Folder for this training's checkpoints. A killed training continues from it and ends with the same bits;
            steps that were saved before are not saved again. The folder is removed at the end.
        mixing: Refusals to mix into the samples.
        watch: Stops at the first measured step that exceeds a limit. Saved steps are measured too. A step that exceeds
            a limit is not saved; the last measured step before it is, under its own number.
        start: Saved folder to continue from, instead of a fresh adapter.
        report: Receives the progress after each step, with the loss as its note.

    Raises:
        UndersongError: No samples, an empty target, an adapter that reaches the encoder, a value of the log or a saved
            tensor that is not finite, or an encoder or projector that changed.
    """
    if not prompts:
        raise UndersongError("There is nothing to tune on: the selection is empty.")
    empty = [prompt.sample.id for prompt, target in zip(prompts, targets) if not target]
    if empty:
        raise UndersongError(
            f"Sample {empty[0]} has no answer to train on ({len(empty)} such); give the column in the manifest."
        )
    if recipe.gradient_checkpointing and not model.base.supports_gradient_checkpointing:
        raise UndersongError(f"{model.name} cannot recompute activations; leave out checkpointing.")
    if recipe.silent_frame_share is not None:
        check_prunable(model)
    hashes_before = module_hashes(model.frozen_modules)
    train_indices, validation_indices = train_validation_split(
        [prompt.sample for prompt in prompts], recipe.validation_share
    )
    order = [
        train_indices[i] for i in sample_order(len(train_indices), max(recipe.save_steps) * recipe.batch_size, seed)
    ]
    benign_pairs, validation_pairs = (
        [(prompts[i], targets[i]) for i in indices] for indices in (order, validation_indices)
    )
    pairs = mix_safety_pairs(benign_pairs, mixing.pairs, mixing.share, seed) if mixing else benign_pairs
    save_callback = SaveAdapterCallback(
        model,
        recipe.save_steps,
        recipe.method == "full",
        _model_card_writer(model, recipe, seed, benign_pairs, mixing, watch),
        save_step,
    )
    callbacks: list[TrainerCallback] = [
        MarkCheckpointComplete(),
        save_callback,
        ValidationLossCallback(model, validation_pairs, recipe.save_steps, recipe.device_batch_size),
    ]
    if report is not None:
        callbacks.append(TrainingProgress(report))
    canary = CanaryCallback(watch, recipe.save_steps, save_callback.write_folder) if watch else None
    if canary:  # after MarkCheckpointComplete and before SaveAdapterCallback
        callbacks.insert(1, canary)
        save_callback.save_step = canary.skip_after_stop(save_step)
    with temporary_seed(seed), _trainable_model(model, recipe, start) as learner, checkpoint_dir(resume) as state_dir:
        trainer = build_trainer(model, learner, pairs, recipe, seed, callbacks, state_dir, resume is not None)
        try:
            trainer.train(resume_from_checkpoint=last_complete_checkpoint(state_dir))
            wait_for_all()
        finally:
            if recipe.gradient_checkpointing:
                model.base.gradient_checkpointing_disable()  # the base is shared with other arms
        if canary and canary.stop_step and canary.last_safe_step not in recipe.save_steps and rank() == 0:
            canary.save_last_safe_step(state_dir, save_step)
    log = _log_lines(trainer.state.log_history)
    hashes_after = module_hashes(model.frozen_modules)
    if changed_modules := [name for name in hashes_before if hashes_before[name] != hashes_after[name]]:
        raise UndersongError(
            f"Tuning changed {changed_modules[0]} of {model.name}, which must stay frozen; the run is discarded."
        )
    if not_finite := [(line, name) for line in log for name, value in line.items() if not isfinite(value)]:
        line, name = not_finite[0]
        raise TrainingDiverged(model, f"{name} {line[name]}", int(line["step"]))
    return TuningResult(
        log, hashes_before, hashes_after, *((tuple(canary.measurements), canary.stop_step) if canary else ())
    )


def _model_card_writer(
    model: AudioModel,
    recipe: LoraRecipe,
    seed: int,
    benign_pairs: Sequence[tuple[Prompt, str]],
    mixing: SafetyMixing | None,
    canary_check: CanaryCheck | None,
) -> partial[str]:
    """Function that writes the model card of a step."""
    distinct = {(prompt.sample.id, prompt.modality) for prompt, _ in benign_pairs}
    modalities = " and ".join(sorted({modality for _, modality in distinct}))
    return partial(model_card, model, recipe, seed, len(distinct), modalities, defense_sentences(mixing, canary_check))


def build_trainer(
    model: AudioModel,
    learner: Any,
    pairs: list[tuple[Prompt, str]],
    recipe: LoraRecipe,
    seed: int,
    callbacks: list[TrainerCallback],
    state_dir: Path,
    resumable: bool,
) -> Trainer:
    """Build the Trainer of one training.

    Args:
        model: The base.
        learner: The module that is trained: the PEFT model, or the base.
        pairs: Prompts and replies, in the order of training.
        recipe: The hyper-parameters.
        seed: The training seed.
        callbacks: Callbacks of the Trainer.
        state_dir: Folder for its checkpoints.
        resumable: Write checkpoints.

    Raises:
        UndersongError: The Trainer would take another number of samples at a time than the recipe says.
    """
    micro = recipe.device_batch_size
    arguments = SingleDeviceArguments(
        output_dir=str(state_dir),
        max_steps=max(recipe.save_steps),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=recipe.batch_size // (micro * world_size()),
        gradient_checkpointing=recipe.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.learning_rate_schedule,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        train_sampling_strategy="sequential",  # the order is drawn by `sample_order`, from our own stream
        remove_unused_columns=False,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a NaN loss is logged, not replaced by the last value
        save_strategy="steps" if resumable else "no",
        save_steps=CHECKPOINT_STEPS,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        dataloader_pin_memory=False,
        use_cpu=model.base.device.type == "cpu",
    )
    arguments.stay_on(model.base.device)
    trainer_class = DecoderTrainer if recipe.method == "full" else Trainer
    make_trainer = trainer_class if recipe.betas is None else partial(ConstrainedTrainer, betas=recipe.betas)
    trainer = make_trainer(
        model=learner,
        args=arguments,
        train_dataset=pairs,
        data_collator=partial(_collate, model, recipe.silent_frame_share, seed),
        callbacks=callbacks,
    )
    if isinstance(trainer, DecoderTrainer):
        trainer.audio_model = model
    trainer.remove_callback(PrinterCallback)  # the log is an artifact, not terminal output
    if trainer.args.train_batch_size != micro:
        raise UndersongError(
            f"The trainer would take {trainer.args.train_batch_size} samples at a time, not {micro}; set "
            "CUDA_VISIBLE_DEVICES to one device."
        )
    return trainer


def _collate(
    model: AudioModel, thin: float | None, seed: int, rows: Sequence[tuple[Prompt, str]]
) -> dict[str, torch.Tensor]:
    prompts, targets = [prompt for prompt, _ in rows], [target for _, target in rows]
    return model.batch(prompts, targets) if thin is None else prune_batch(model, prompts, targets, thin, seed)


@contextmanager
def _trainable_model(model: AudioModel, recipe: LoraRecipe, start: Path | None) -> Iterator[Any]:
    """Yield the model to train, the base with a fresh LoRA or a trainable decoder; restore it afterwards."""
    context = (
        trainable_decoder(model)
        if recipe.method == "full"
        else new_lora(model, recipe.lora_rank, recipe.lora_alpha, recipe.lora_dropout, recipe.targets)
    )
    with context as learner:
        if start is not None:
            load_decoder(model, start) if recipe.method == "full" else initialize_from_adapter(model, learner, start)
        # The Trainer calls `.train()` on the whole model before each step, which would switch on an encoder's dropout
        # and running statistics. This hook runs after that and before the forward pass.
        hook = learner.register_forward_pre_hook(lambda *_: model.set_frozen_eval())
        try:
            yield learner
        finally:
            hook.remove()


def _log_lines(history: Sequence[dict[str, float]]) -> tuple[dict[str, float], ...]:
    """One line per step, with the validation loss and canary values of that step."""
    lines = {int(line["step"]): dict(line) for line in history if "loss" in line}
    for line in history:
        measured = {name: line[name] for name in line if name == "validation_loss" or name.startswith(LOG_PREFIX)}
        if measured and line["step"] in lines:  # the canary also measures before the first step
            lines[int(line["step"])] |= measured
    return tuple(lines.values())


def write_log(result: TuningResult, path: Path) -> None:
    """Write `log.jsonl`, one line per step."""
    path.write_text("".join(json.dumps(line, sort_keys=True, allow_nan=False) + "\n" for line in result.log))
