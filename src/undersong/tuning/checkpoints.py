"""Saved adapters at chosen steps, and resumable Trainer checkpoints."""

from __future__ import annotations

import json
import logging
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
from undersong.store.atomic import disk_error_context, fsync_path, remove_path, sweep_removed, write_atomic
from undersong.store.hashing import hash_file
from undersong.tuning.distributed import rank, wait_for_all
from undersong.types import UndersongError

logger = logging.getLogger("undersong.tuning")

CHECKPOINT_MANIFEST = "files.json"  # written last: the SHA-256 of each file of a complete checkpoint or snapshot
CANARY_FOLDER = "canary"  # in the Trainer's output folder: the canary's snapshots
SaveStep = Callable[[str, Callable[[Path], None]], None]  # (name, function that writes the folder)


def step_folder(step: int) -> str:
    """Name of the folder of a saved step."""
    return f"step-{step:06d}"


class TrainingDiverged(UndersongError):
    """Training produced NaN or infinity, and would do so again from any of its checkpoints."""

    def __init__(self, model: AudioModel, reason: str, step: int) -> None:
        super().__init__(f"Tuning {model.name} diverged ({reason} at step {step}); lower the learning rate.")


class DamagedSnapshot(UndersongError):
    """A snapshot that a canary goes back to is not what was written; training from a checkpoint would end there too."""

    def __init__(self, snapshot: Path, damage: str) -> None:
        super().__init__(
            f"The canary's snapshot {snapshot} is damaged ({damage}), so the last safe step is lost; start the same "
            "command again, which trains from step 0."
        )


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
    """Writes a checkpoint's manifest when it is complete; a kill during writing leaves a folder without one."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wait_for_all()  # each process writes the state of its own random numbers
        if rank() == 0:
            write_checkpoint_manifest(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def write_checkpoint_manifest(folder: Path) -> None:
    """Write the hash of every file of a complete checkpoint or snapshot."""
    hashes = {file.relative_to(folder).as_posix(): hash_file(file) for file in _files_in(folder)}
    fsync_path(folder)
    write_atomic(folder / CHECKPOINT_MANIFEST, json.dumps(hashes, indent=1, sort_keys=True).encode())


@contextmanager
def checkpoint_dir(resume: Path | None) -> Iterator[Path]:
    """Yield the folder for the Trainer's checkpoints: `resume`, or a temporary one.

    The folder is removed when training has finished or diverged, or cannot go back to its last safe step.
    """
    if resume is None:
        with tempfile.TemporaryDirectory() as scratch:  # the Trainer creates its folder, even if it writes nothing
            yield Path(scratch)
        return
    resume.mkdir(parents=True, exist_ok=True)
    try:
        with disk_error_context(resume):
            yield resume
    except (TrainingDiverged, DamagedSnapshot):
        _remove(resume)  # resuming from it would end in the same way
        raise
    _remove(resume)


def _remove(state_dir: Path) -> None:
    if rank() == 0:
        remove_path(state_dir)


def last_complete_checkpoint(state_dir: Path) -> str | None:
    """Path of the newest checkpoint whose files all have the bytes that were written; None to begin at step 0.

    Others are removed, or the Trainer would count them among the newest. A damaged one is reported in a line. Without
    the snapshots of a canary no checkpoint is complete.
    """
    folders = sorted(state_dir.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    complete = [folder for folder in folders if (folder / CHECKPOINT_MANIFEST).exists()]  # others were being written
    snapshots = sorted((state_dir / CANARY_FOLDER).glob("step-*"))
    damage = {
        folder.relative_to(state_dir).as_posix(): reason
        for folder in [*complete, *(snapshots if complete else [])]
        if (reason := checkpoint_damage(folder))
    }
    whole = [folder for folder in complete if folder.name not in damage]
    is_newest_damaged = bool(complete) and complete[-1] not in whole
    is_snapshot_damaged = len(damage) > len(complete) - len(whole)
    if (is_newest_damaged or is_snapshot_damaged) and (state_dir / CANARY_FOLDER).exists():
        whole = []  # only the newest checkpoint has the snapshots that a canary goes back to
    wait_for_all()  # each process looks at the folders before the first removes any
    if rank() == 0:
        sweep_removed(state_dir)
        for folder in set(folders) - set(whole):
            remove_path(folder)
        if damage and not whole:
            remove_path(state_dir / CANARY_FOLDER)
        for name, reason in damage.items():
            logger.warning(
                "%s is damaged (%s); the training continues from %s.",
                state_dir / name,
                reason,
                whole[-1].name if whole else "step 0",
            )
    return str(whole[-1]) if whole else None


def _files_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != CHECKPOINT_MANIFEST)


def checkpoint_damage(folder: Path) -> str | None:
    """What is wrong with a complete checkpoint or snapshot; None if every file has the bytes that were written."""
    try:
        hashes = json.loads((folder / CHECKPOINT_MANIFEST).read_bytes())
        names = {file.relative_to(folder).as_posix() for file in _files_in(folder)}
        if not isinstance(hashes, dict) or not hashes:
            return f"{CHECKPOINT_MANIFEST} cannot be read"
        if missing := sorted(hashes.keys() - names):
            return f"{missing[0]} is missing"
        changed = [name for name, digest in sorted(hashes.items()) if hash_file(folder / name) != digest]
    except (OSError, ValueError):
        return f"{CHECKPOINT_MANIFEST} cannot be read"
    if changed:
        return f"{changed[0]} is not what was written"
    if extra := sorted(names - hashes.keys()):
        return f"{extra[0]} was not written by the training"
    return None
