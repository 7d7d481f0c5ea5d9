"""LoRA on the decoder from audio or from text, on `transformers.Trainer`; encoder and projector provably unchanged.

Paper section on fine-tuning; DESIGN rules 5-7.  Knows models; does not know selections, judges or reports.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from undersong.models.adapter import AudioModel
from undersong.models.adapters import fresh_lora, save_adapter
from undersong.models.frozen import fingerprint
from undersong.tuning.seeds import seeded
from undersong.types import Prompt, UndersongError


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


@dataclass(frozen=True)
class Tuned:
    """What a run leaves besides its adapters: a log line a step, and the frozen modules' hashes before and after."""

    log: tuple[dict[str, float], ...]
    frozen_before: dict[str, str]
    frozen_after: dict[str, str]


def step_folder(step: int) -> str:
    """Name of the PEFT folder kept at a step."""
    return f"step-{step:06d}"


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
) -> Tuned:
    """Train a fresh LoRA on (prompt, target reply) pairs.

    `keep(name, write)` is called at each of `recipe.steps` with a function that writes a standard PEFT folder.  One
    seed drives sample order, adapter initialisation and dropout.  Errors: no samples, a target that is empty, an
    adapter that reaches the encoder, a loss that is no number, an encoder or projector that changed.
    """
    if not prompts:
        raise UndersongError("There is nothing to tune on: the selection is empty.")
    empty = [prompt.sample.id for prompt, target in zip(prompts, targets) if not target]
    if empty:
        raise UndersongError(
            f"Sample {empty[0]} has no answer to train on ({len(empty)} such); give the column in the manifest."
        )
    before = fingerprint(model.frozen)
    order = sample_order(len(prompts), max(recipe.steps) * recipe.batch, seed)
    with seeded(seed), fresh_lora(model, recipe.rank, recipe.alpha, recipe.dropout, recipe.targets) as peft_model:
        # The Trainer calls `.train()` on everything before each step, which would switch on an encoder's dropout and
        # running statistics; this hook runs after that and before the forward pass.
        peft_model.register_forward_pre_hook(lambda *_: model.quiet())
        pairs = [(prompts[i], targets[i]) for i in order]
        with tempfile.TemporaryDirectory() as scratch:  # the Trainer makes its folder, though it writes nothing there
            trainer = _trainer(model, peft_model, pairs, recipe, seed, keep, scratch)
            trainer.train()
        log = tuple(dict(line) for line in trainer.state.log_history if "loss" in line)
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
    peft_model: Any,
    pairs: list[tuple[Prompt, str]],
    recipe: LoraRecipe,
    seed: int,
    keep: Callable[[str, Callable[[Path], None]], None],
    scratch: str,
) -> Trainer:
    arguments = TrainingArguments(
        output_dir=scratch,
        max_steps=max(recipe.steps),
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip,
        train_sampling_strategy="sequential",  # the order is drawn by `sample_order`, from our own stream
        remove_unused_columns=False,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is no number is told, not replaced by the last one
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        dataloader_pin_memory=False,
        use_cpu=model.base.device.type == "cpu",
    )
    trainer = Trainer(
        model=peft_model,
        args=arguments,
        train_dataset=pairs,
        data_collator=lambda rows: model.batch([p for p, _ in rows], [t for _, t in rows]),
        callbacks=[_Keep(model, recipe.steps, keep)],
    )
    trainer.remove_callback(PrinterCallback)  # the log is an artefact, not terminal output
    return trainer


class _Keep(TrainerCallback):
    """Keeps the adapter at the wanted steps."""

    def __init__(
        self, model: AudioModel, steps: Sequence[int], keep: Callable[[str, Callable[[Path], None]], None]
    ) -> None:
        self.model, self.steps, self.keep = model, frozenset(steps), keep

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            self.keep(step_folder(state.global_step), partial(save_adapter, self.model))


def write_log(tuned: Tuned, path: Path) -> None:
    """`log.jsonl`: one line a step."""
    path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in tuned.log))
