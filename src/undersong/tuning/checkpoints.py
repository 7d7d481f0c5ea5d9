"""Saved adapters at chosen steps, and resumable Trainer checkpoints."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from undersong.models.audio_lm import AudioModel
from undersong.models.decoder_weights import load_decoder, save_decoder
from undersong.models.lora import save_adapter
from undersong.models.weights import first_non_finite
from undersong.store import disk_error_context
from undersong.tuning.distributed import rank, wait_for_all
from undersong.types import UndersongError

COMPLETE_MARKER = "whole"  # file in a complete checkpoint
SaveStep = Callable[[str, Callable[[Path], None]], None]  # (name, function that writes the folder)


def step_folder(step: int) -> str:
    """Name of the folder of a saved step."""
    return f"step-{step:06d}"


class TrainingDiverged(UndersongError):
    """Training produced NaN or infinity, and would do so again from any of its checkpoints."""

    def __init__(self, model: AudioModel, reason: str, step: int) -> None:
        super().__init__(f"Tuning {model.name} diverged ({reason} at step {step}); lower the learning rate.")


class DecoderTrainer(Trainer):
    """A Trainer whose checkpoints hold only the decoder's trained weights.

    The Trainer's own checkpoints hold the whole model under the names of the release. On resuming it finds none of
    them, and silently continues from the base.
    """

    audio_model: AudioModel

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        save_decoder(self.audio_model, Path(output_dir or str(self.args.output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_decoder(self.audio_model, Path(resume_from_checkpoint))


class SaveAdapterCallback(TrainerCallback):
    """Saves the adapter (or decoder) at the given steps."""

    def __init__(
        self, model: AudioModel, steps: Sequence[int], full: bool, make_card: Callable[[int], str], save_step: SaveStep
    ):
        self.model, self.steps, self.make_card, self.save_step = model, frozenset(steps), make_card, save_step
        self.save_weights = save_decoder if full else save_adapter

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps and rank() == 0:
            self.save_step(step_folder(state.global_step), partial(self.write_folder, state.global_step))

    def write_folder(self, step: int, folder: Path) -> None:
        """Write the folder of a step: the current weights, with a model card.

        Raises TrainingDiverged for a tensor that is not finite. The loss does not show it, because it is computed
        before the last update.
        """
        trainable = ((name, value) for name, value in self.model.model.named_parameters() if value.requires_grad)
        if bad_tensor := first_non_finite(trainable):
            raise TrainingDiverged(self.model, f"{bad_tensor} is not finite", step)
        self.save_weights(self.model, folder)
        (folder / "README.md").write_text(self.make_card(step), encoding="utf-8")


class MarkCheckpointComplete(TrainerCallback):
    """Marks a checkpoint when it is complete; a kill during writing leaves a folder without the mark."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wait_for_all()  # each process writes the state of its own random numbers
        if rank() == 0:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE_MARKER).touch()


@contextmanager
def checkpoint_dir(resume: Path | None) -> Iterator[Path]:
    """Yield the folder for the Trainer's checkpoints: `resume`, or a temporary one.

    The folder is removed when training has finished or diverged.
    """
    if resume is None:
        with tempfile.TemporaryDirectory() as scratch:  # the Trainer creates its folder, even if it writes nothing
            yield Path(scratch)
        return
    resume.mkdir(parents=True, exist_ok=True)
    try:
        with disk_error_context(resume):
            yield resume
    except TrainingDiverged:
        _remove(resume)  # resuming from it would diverge again
        raise
    _remove(resume)


def _remove(state_dir: Path) -> None:
    if rank() == 0:
        shutil.rmtree(state_dir)


def last_complete_checkpoint(state_dir: Path) -> str | None:
    """Path of the newest complete checkpoint. Others are removed, or the Trainer would count them among the newest."""
    states = sorted(state_dir.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    complete = [folder for folder in states if (folder / COMPLETE_MARKER).is_file()]
    if rank() == 0:
        for folder in set(states) - set(complete):
            shutil.rmtree(folder)
    return str(complete[-1]) if complete else None
