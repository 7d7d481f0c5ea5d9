"""Tuning of the decoder alone, by LoRA or whole, from audio or text, on `transformers.Trainer`; the rest is proved
unchanged.

Paper section on fine-tuning; DESIGN rules 5-7.  Knows models; does not know selections, judges or reports.
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
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from undersong.models.adapter import AudioModel
from undersong.models.adapters import begin_from, fresh_lora
from undersong.models.decoder import fresh_decoder, load_decoder
from undersong.models.frozen import fingerprint
from undersong.tuning.canary import PREFIX, Canary, Watch
from undersong.tuning.card import card, defended
from undersong.tuning.constrained import ConstrainedTrainer
from undersong.tuning.held_out import HeldOut, split
from undersong.tuning.mixing import Mixing, mixed
from undersong.tuning.order import sample_order as sample_order
from undersong.tuning.processes import all_here, rank, world
from undersong.tuning.recipe import LoraRecipe as LoraRecipe
from undersong.tuning.seeds import seeded
from undersong.tuning.states import DecoderTrainer, Diverged, Keep, Keeping, Vouch, last_whole, place_of
from undersong.tuning.states import step_folder as step_folder
from undersong.tuning.thinning import check_thin, thin_batch
from undersong.types import Prompt, UndersongError

STATE_EVERY = 50  # steps; what a kill may cost


@dataclass(frozen=True)
class Tuned:
    """What a run leaves besides its adapters: a log line a step, and the frozen modules' hashes before and after."""

    log: tuple[dict[str, float], ...]
    frozen_before: dict[str, str]
    frozen_after: dict[str, str]
    watched: tuple[dict[str, float], ...] = ()  # one a measurement of the canary: step (0: the base) and values
    stopped: int | None = None  # the step at which a limit of the canary broke; None: it ran to its end


def tune(
    model: AudioModel,
    prompts: Sequence[Prompt],
    targets: Sequence[str],
    recipe: LoraRecipe,
    seed: int,
    keep: Keeping,
    resume: Path | None = None,
    mixing: Mixing | None = None,
    watch: Watch | None = None,
    start: Path | None = None,
) -> Tuned:
    """Train a fresh LoRA on (prompt, target reply) pairs, or one that goes on from a kept folder `start`.

    `keep(name, write)` is called at each of `recipe.steps` with a function that writes a standard PEFT folder.  One
    seed drives sample order, adapter initialisation and dropout.  `resume`: a folder for this very training's state; a
    killed one goes on from there and ends with the same bits (what it kept before is not kept again), and the folder is
    gone in the end.  In several processes (`processes`) each takes its share of every batch, and the first alone keeps.

    Defenses, each off by default and each one change: `recipe.betas` (`constrained`), `mixing` of refusals among the
    samples, and `watch`, which stops at the first measured step that breaks a limit.  Measured then is every kept step
    too; one that breaks a limit is not kept, and the last measured step before it is, under its own number.
    Errors: no samples, a target that is empty, an adapter that reaches the encoder, a number of the
    log or a tensor to keep that is not finite, an encoder or projector that changed.
    """
    if not prompts:
        raise UndersongError("There is nothing to tune on: the selection is empty.")
    empty = [prompt.sample.id for prompt, target in zip(prompts, targets) if not target]
    if empty:
        raise UndersongError(
            f"Sample {empty[0]} has no answer to train on ({len(empty)} such); give the column in the manifest."
        )
    if recipe.checkpointing and not model.base.supports_gradient_checkpointing:
        raise UndersongError(f"{model.name} cannot compute activations again; leave out checkpointing.")
    if recipe.thin is not None:
        check_thin(model)
    before = fingerprint(model.frozen)
    learned, held = split([prompt.sample for prompt in prompts], recipe.validation)
    order = [learned[i] for i in sample_order(len(learned), max(recipe.steps) * recipe.batch, seed)]
    benign, apart = ([(prompts[i], targets[i]) for i in places] for places in (order, held))
    pairs = mixed(benign, mixing.pairs, mixing.share, seed) if mixing else benign
    keeper = Keep(model, recipe.steps, recipe.method == "full", _told(model, recipe, seed, benign, mixing, watch), keep)
    callbacks: list[TrainerCallback] = [Vouch(), keeper, HeldOut(model, apart, recipe.steps, recipe.at_a_time)]
    canary = Canary(watch, recipe.steps, keeper.write) if watch else None
    if canary:  # before what is kept, and after a state is vouched for
        callbacks.insert(1, canary)
        keeper.keep = canary.unless_stopped(keep)
    with seeded(seed), _learner(model, recipe, start) as learner, place_of(resume) as place:
        trainer = _trainer(model, learner, pairs, recipe, seed, callbacks, place, resume is not None)
        try:
            trainer.train(resume_from_checkpoint=last_whole(place))
            all_here()
        finally:
            if recipe.checkpointing:
                model.base.gradient_checkpointing_disable()  # the base is shared with other arms
        if canary and canary.stopped and canary.safe not in recipe.steps and rank() == 0:
            canary.keep_safe(place, keep)
    log = _lines(trainer.state.log_history)
    after = fingerprint(model.frozen)
    if moved := [name for name in before if before[name] != after[name]]:
        raise UndersongError(
            f"Tuning changed {moved[0]} of {model.name}, which must stay frozen; the run is discarded."
        )
    if lost := [(line, name) for line in log for name, value in line.items() if not isfinite(value)]:
        line, name = lost[0]
        raise Diverged(model, f"{name} {line[name]}", int(line["step"]))
    return Tuned(log, before, after, *((tuple(canary.watched), canary.stopped) if canary else ()))


def _told(
    model: AudioModel,
    recipe: LoraRecipe,
    seed: int,
    benign: Sequence[tuple[Prompt, str]],
    mixing: Mixing | None,
    watch: Watch | None,
) -> partial[str]:
    """The card of a step."""
    distinct = {(prompt.sample.id, prompt.modality) for prompt, _ in benign}
    modalities = " and ".join(sorted({modality for _, modality in distinct}))
    return partial(card, model, recipe, seed, len(distinct), modalities, defended(mixing, watch))


def _trainer(
    model: AudioModel,
    learner: Any,
    pairs: list[tuple[Prompt, str]],
    recipe: LoraRecipe,
    seed: int,
    callbacks: list[TrainerCallback],
    place: Path,
    lasting: bool,
) -> Trainer:
    micro = recipe.at_a_time
    arguments = TrainingArguments(
        output_dir=str(place),
        max_steps=max(recipe.steps),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=recipe.batch // (micro * world()),
        gradient_checkpointing=recipe.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip,
        train_sampling_strategy="sequential",  # the order is drawn by `sample_order`, from our own stream
        remove_unused_columns=False,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is no number is told, not replaced by the last one
        save_strategy="steps" if lasting else "no",
        save_steps=STATE_EVERY,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        dataloader_pin_memory=False,
        use_cpu=model.base.device.type == "cpu",
    )
    plain = DecoderTrainer if recipe.method == "full" else Trainer
    made = plain if recipe.betas is None else partial(ConstrainedTrainer, betas=recipe.betas)
    trainer = made(
        model=learner,
        args=arguments,
        train_dataset=pairs,
        data_collator=partial(_batch, model, recipe.thin, seed),
        callbacks=callbacks,
    )
    if isinstance(trainer, DecoderTrainer):
        trainer.audio_model = model
    trainer.remove_callback(PrinterCallback)  # the log is an artefact, not terminal output
    return trainer


def _batch(
    model: AudioModel, thin: float | None, seed: int, rows: Sequence[tuple[Prompt, str]]
) -> dict[str, torch.Tensor]:
    prompts, targets = [prompt for prompt, _ in rows], [target for _, target in rows]
    return model.batch(prompts, targets) if thin is None else thin_batch(model, prompts, targets, thin, seed)


@contextmanager
def _learner(model: AudioModel, recipe: LoraRecipe, start: Path | None) -> Iterator[Any]:
    """What the Trainer trains: the base under a fresh LoRA, or with its decoder free to learn; then as it was."""
    fresh = (
        fresh_decoder(model)
        if recipe.method == "full"
        else fresh_lora(model, recipe.rank, recipe.alpha, recipe.dropout, recipe.targets)
    )
    with fresh as learner:
        if start is not None:
            load_decoder(model, start) if recipe.method == "full" else begin_from(model, learner, start)
        # The Trainer calls `.train()` on everything before each step, which would switch on an encoder's dropout and
        # running statistics; this hook runs after that and before the forward pass.
        hook = learner.register_forward_pre_hook(lambda *_: model.quiet())
        try:
            yield learner
        finally:
            hook.remove()


def _lines(history: Sequence[dict[str, float]]) -> tuple[dict[str, float], ...]:
    """One line a step, with what was measured then: the loss on what was held out, the canary's values."""
    lines = {int(line["step"]): dict(line) for line in history if "loss" in line}
    for line in history:
        measured = {name: line[name] for name in line if name == "validation_loss" or name.startswith(PREFIX)}
        if measured and line["step"] in lines:  # a canary is asked before the first step, too
            lines[int(line["step"])] |= measured
    return tuple(lines.values())


def write_log(tuned: Tuned, path: Path) -> None:
    """`log.jsonl`: one line a step."""
    path.write_text("".join(json.dumps(line, sort_keys=True, allow_nan=False) + "\n" for line in tuned.log))
