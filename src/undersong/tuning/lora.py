"""Tuning of the decoder alone, by LoRA or whole, from audio or text, on `transformers.Trainer`; the rest is proved
unchanged.

Paper section on fine-tuning; DESIGN rules 5-7.  Knows models; does not know selections, judges or reports.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PrinterCallback, Trainer, TrainingArguments

from undersong.models.adapter import AudioModel
from undersong.models.adapters import fresh_lora
from undersong.models.decoder import fresh_decoder
from undersong.models.frozen import fingerprint
from undersong.tuning.card import card
from undersong.tuning.held_out import HeldOut, split
from undersong.tuning.processes import all_here, world
from undersong.tuning.seeds import seeded
from undersong.tuning.states import DecoderTrainer, Keep, Vouch, last_whole, place_of
from undersong.tuning.states import step_folder as step_folder
from undersong.types import Prompt, UndersongError

STATE_EVERY = 50  # steps; what a kill may cost
METHODS = ("lora", "full")


@dataclass(frozen=True)
class LoraRecipe:
    """Hyper-parameters of one arm.  The adapter is kept at each of `steps` (optimiser steps), so a run is a curve."""

    steps: tuple[int, ...] = (20, 40)
    batch: int = 8
    learning_rate: float = 5e-4
    schedule: str = "constant_with_warmup"  # a transformers scheduler name
    warmup: int = 5  # steps
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None  # full module paths; None: every linear layer of the decoder's blocks
    micro_batch: int | None = None  # samples in memory at a time; the step is of the whole `batch` all the same
    method: str = "lora"  # lora | full: all of the decoder's blocks and its last norm, without an adapter
    validation: float = 0.0  # share of the samples, by whole groups, that is held out and measured at each of `steps`
    checkpointing: bool = False  # activations are computed again in the backward pass: slower, and far less memory

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UndersongError(f"There is no method {self.method!r} of tuning; take one of {', '.join(METHODS)}.")
        if self.micro_batch is not None and (self.micro_batch < 1 or self.batch % self.micro_batch):
            raise UndersongError(
                f"A batch of {self.batch} cannot be taken {self.micro_batch} at a time; give a divisor as micro_batch."
            )

    @property
    def at_a_time(self) -> int:
        """Samples that one process has in memory; an error where the processes cannot share a batch evenly."""
        micro = self.micro_batch or max(1, self.batch // world())
        if self.batch % (micro * world()):
            raise UndersongError(
                f"A batch of {self.batch} cannot be taken by {world()} processes {micro} at a time; give a batch that "
                "they divide, or another micro_batch."
            )
        return micro


@dataclass(frozen=True)
class Tuned:
    """What a run leaves besides its adapters: a log line a step, and the frozen modules' hashes before and after."""

    log: tuple[dict[str, float], ...]
    frozen_before: dict[str, str]
    frozen_after: dict[str, str]


def sample_order(count: int, length: int, seed: int) -> list[int]:
    """`length` indices into `count` samples: whole shuffles one after another, so every step is a full batch."""
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(count) for _ in range(-(-length // count))]
    return np.concatenate(rounds)[:length].tolist()


def tune(
    model: AudioModel,
    prompts: Sequence[Prompt],
    targets: Sequence[str],
    recipe: LoraRecipe,
    seed: int,
    keep: Callable[[str, Callable[[Path], None]], None],
    resume: Path | None = None,
) -> Tuned:
    """Train a fresh LoRA on (prompt, target reply) pairs.

    `keep(name, write)` is called at each of `recipe.steps` with a function that writes a standard PEFT folder.  One
    seed drives sample order, adapter initialisation and dropout.  `resume`: a folder for this very training's state; a
    killed one goes on from there and ends with the same bits (what it kept before is not kept again), and the folder is
    gone in the end.  In several processes (`processes`) each takes its share of every batch, and the first alone keeps.
    Errors: no samples, a target that is empty, an adapter that reaches the encoder, a loss that is no
    number, an encoder or projector that changed.
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
    before = fingerprint(model.frozen)
    learned, held = split([prompt.sample for prompt in prompts], recipe.validation)
    order = [learned[i] for i in sample_order(len(learned), max(recipe.steps) * recipe.batch, seed)]
    with seeded(seed), _learner(model, recipe) as learner:
        pairs = [(prompts[i], targets[i]) for i in order]
        with place_of(resume) as place:
            trainer = _trainer(model, learner, pairs, recipe, seed, keep, place, resume is not None)
            apart = [(prompts[i], targets[i]) for i in held]
            trainer.add_callback(HeldOut(model, apart, recipe.steps, recipe.at_a_time))
            try:
                trainer.train(resume_from_checkpoint=last_whole(place))
                all_here()
            finally:
                if recipe.checkpointing:
                    model.base.gradient_checkpointing_disable()  # the base is shared with other arms
        log = _lines(trainer.state.log_history)
    after = fingerprint(model.frozen)
    if moved := [name for name in before if before[name] != after[name]]:
        raise UndersongError(
            f"Tuning changed {moved[0]} of {model.name}, which must stay frozen; the run is discarded."
        )
    if lost := [line for line in log if not isfinite(line["loss"])]:
        raise UndersongError(
            f"Tuning {model.name} diverged (loss {lost[0]['loss']} at step {lost[0]['step']}); lower the learning rate."
        )
    return Tuned(log, before, after)


def _trainer(
    model: AudioModel,
    learner: Any,
    pairs: list[tuple[Prompt, str]],
    recipe: LoraRecipe,
    seed: int,
    keep: Callable[[str, Callable[[Path], None]], None],
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
    full = recipe.method == "full"
    distinct = {(prompt.sample.id, prompt.modality) for prompt, _ in pairs}
    modalities = " and ".join(sorted({modality for _, modality in distinct}))
    told = partial(card, model, recipe, seed, len(distinct), modalities)
    trainer = (DecoderTrainer if full else Trainer)(
        model=learner,
        args=arguments,
        train_dataset=pairs,
        data_collator=lambda rows: model.batch([p for p, _ in rows], [t for _, t in rows]),
        callbacks=[Keep(model, recipe.steps, full, told, keep), Vouch()],
    )
    if isinstance(trainer, DecoderTrainer):
        trainer.audio_model = model
    trainer.remove_callback(PrinterCallback)  # the log is an artefact, not terminal output
    return trainer


@contextmanager
def _learner(model: AudioModel, recipe: LoraRecipe) -> Iterator[Any]:
    """What the Trainer trains: the base under a fresh LoRA, or with its decoder free to learn; then as it was."""
    fresh = (
        fresh_decoder(model)
        if recipe.method == "full"
        else fresh_lora(model, recipe.rank, recipe.alpha, recipe.dropout, recipe.targets)
    )
    with fresh as learner:
        # The Trainer calls `.train()` on everything before each step, which would switch on an encoder's dropout and
        # running statistics; this hook runs after that and before the forward pass.
        hook = learner.register_forward_pre_hook(lambda *_: model.quiet())
        try:
            yield learner
        finally:
            hook.remove()


def _lines(history: Sequence[dict[str, float]]) -> tuple[dict[str, float], ...]:
    """One line a step, with the loss on what was held out where it was measured."""
    apart = {int(line["step"]): line["validation_loss"] for line in history if "validation_loss" in line}
    lines = [dict(line) for line in history if "loss" in line]
    for line in lines:
        if int(line["step"]) in apart:
            line["validation_loss"] = apart[int(line["step"])]
    return tuple(lines)


def write_log(tuned: Tuned, path: Path) -> None:
    """`log.jsonl`: one line a step."""
    path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in tuned.log))
