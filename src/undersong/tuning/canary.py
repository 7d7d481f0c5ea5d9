"""Early stopping by safety: a Trainer callback that measures canary prompts and stops when a limit is exceeded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from undersong.store.atomic import atomic_replacement, remove_path, sweep_removed
from undersong.tuning.checkpoints import (
    CANARY_FOLDER,
    CHECKPOINT_MANIFEST,
    DamagedSnapshot,
    SaveStep,
    checkpoint_damage,
    step_folder,
    write_checkpoint_manifest,
)
from undersong.tuning.reproducibility import eval_mode, temporary_seed
from undersong.types import UndersongError

LOG_PREFIX = "canary_"  # of canary values in the log


@dataclass(frozen=True)
class CanaryCheck:
    """Measurement of a model in training: the function, the limits, and the number of steps between two measurements.

    `measure` uses a small fixed list of harmful and benign prompts. Results must never be reported on these prompts
    (rule 14 in docs/contributing/rules.md): stopping by the test prompts would be fitting to them.
    """

    measure: Callable[[], Mapping[str, float]]  # of the current model; name -> value, such as jsr, over_refusal
    limits: Mapping[str, float]  # name -> largest allowed value
    every: int = 10  # steps

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UndersongError(f"A canary cannot be measured every {self.every} steps; give 1 or more.")
        if not self.limits or not all(map(isfinite, self.limits.values())):
            raise UndersongError(f"Limits {dict(self.limits)} stop nothing; give a number for at least one name.")

    def exceeded(self, values: Mapping[str, float]) -> list[str]:
        """Names whose value is above the limit."""
        return [name for name, limit in self.limits.items() if values[name] > limit]


class CanaryCallback(TrainerCallback):
    """Measures before the first step, every `check.every` steps and at `extra_steps`; stops when a limit is exceeded.

    The adapter of the last step within all limits is in `OUTPUT/canary/step-NNNNNN` (step 0: untrained), with the
    hashes of its files. `save(step, folder)` writes it (default: the model's `save_pretrained`). Values are in the
    Trainer's `log_history` as `canary_NAME`. Measuring leaves no trace: every module returns to its mode, and the
    global random state is restored. Random numbers inside `measure` are seeded by the Trainer's seed, the same every
    time.

    A resumed training reads earlier measurements from the log of its checkpoint, and repeats later ones. No checkpoint
    is saved at a step that exceeds a limit, or training would resume from it. All processes measure, because a split
    model needs all of them, but the values of the first count, and only it writes. Raises UndersongError for a limit
    that is exceeded before training, and for a value that is missing or not finite.
    """

    def __init__(
        self, check: CanaryCheck, extra_steps: Collection[int] = (), save: Callable[[int, Path], None] | None = None
    ) -> None:
        self.check, self.extra_steps, self.save = check, frozenset(extra_steps), save
        self.measurements: list[dict[str, float]] = []  # of each measurement: step, and name -> value

    @property
    def stop_step(self) -> int | None:
        """The step at which a limit was exceeded; None if none was."""
        last = self.measurements[-1] if self.measurements else None
        return int(last["step"]) if last is not None and self.check.exceeded(last) else None

    @property
    def last_safe_step(self) -> int:
        """The last step within all limits."""
        return max(
            int(measurement["step"]) for measurement in self.measurements if not self.check.exceeded(measurement)
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.measurements = [measurement for line in state.log_history if (measurement := _logged_measurement(line))]
        if self.measurements:
            return  # resumed from a checkpoint
        values = self._run_check(args, state, control, kwargs["model"])
        if exceeded := self.check.exceeded(values):
            name = exceeded[0]
            raise UndersongError(
                f"Before training the model has {name} {values[name]:g}, above its limit of "
                f"{self.check.limits[name]:g}; raise the limit, or take another model or list of prompts."
            )
        self._save_snapshot(args, state, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.check.every and state.global_step not in self.extra_steps:
            return
        values = self._run_check(args, state, control, kwargs["model"])
        if exceeded := self.check.exceeded(values):
            control.should_training_stop, control.should_save = True, False
            if state.is_world_process_zero:
                self.report_stop(args, state, {name: values[name] for name in exceeded})
        else:
            self._save_snapshot(args, state, kwargs["model"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            _remove_older_snapshots(_snapshot_folder(args, self.last_safe_step))

    def report_measurement(self, args: Any, state: Any, control: Any, logs: Mapping[str, float]) -> None:
        """Pass the values of a measurement on; here they are in the log alone."""

    def report_stop(self, args: Any, state: Any, exceeded: Mapping[str, float]) -> None:
        """Say which values are above their limits; here the result of the training says so."""

    def skip_after_stop(self, save_step: SaveStep) -> SaveStep:
        """Wrap `save_step` so that it does nothing at a step that exceeded a limit. Call it after this callback."""
        return lambda name, write: None if self.stop_step is not None else save_step(name, write)

    def save_last_safe_step(self, output: Path, save_step: SaveStep) -> None:
        """Pass the snapshot of the last safe step to `save_step`. Raises DamagedSnapshot if it changed on disk."""
        snapshot = output / CANARY_FOLDER / step_folder(self.last_safe_step)
        if damage := checkpoint_damage(snapshot):
            raise DamagedSnapshot(snapshot, damage)
        without_manifest = shutil.ignore_patterns(CHECKPOINT_MANIFEST)
        save_step(snapshot.name, partial(shutil.copytree, snapshot, ignore=without_manifest, dirs_exist_ok=True))

    def _run_check(self, args: Any, state: Any, control: Any, model: Any) -> dict[str, float]:
        """Measure, and record the values."""
        from accelerate.utils import broadcast_object_list

        with eval_mode(model), temporary_seed(args.seed):
            local_values = {name: float(value) for name, value in self.check.measure().items()}
        values: dict[str, float] = broadcast_object_list([local_values])[0]
        for name in {**self.check.limits, **values}:
            if not isfinite(values.get(name, float("nan"))):
                raise UndersongError(
                    f"The canary measured no {name} at step {state.global_step} "
                    f"({values.get(name, 'not among ' + ', '.join(values))}); measure it, or remove its limit."
                )
        self.measurements.append({"step": state.global_step, **values})
        logs = {LOG_PREFIX + name: values[name] for name in values}
        state.log_history.append({"step": state.global_step, **logs})
        self.report_measurement(args, state, control, logs)
        return values

    def _save_snapshot(self, args: Any, state: Any, model: Any) -> None:
        """Save the current adapter. Snapshots that a checkpoint needs stay until the next checkpoint is saved."""
        if not state.is_world_process_zero:
            return
        snapshot = _snapshot_folder(args, state.global_step)
        with atomic_replacement(snapshot) as folder:
            self.save(state.global_step, folder) if self.save else model.save_pretrained(folder)
            write_checkpoint_manifest(folder)
        if args.save_strategy == "no":
            _remove_older_snapshots(snapshot)


def _snapshot_folder(args: Any, step: int) -> Path:
    return Path(args.output_dir) / CANARY_FOLDER / step_folder(step)


def _remove_older_snapshots(snapshot: Path) -> None:
    sweep_removed(snapshot.parent, r"step-\d+")
    for older in snapshot.parent.glob("step-*"):
        if older.name < snapshot.name:
            remove_path(older)  # a half of one would cost the training: it counts as a damaged snapshot


def _logged_measurement(line: Mapping[str, float]) -> dict[str, float]:
    """Canary values in a line of a Trainer's log: step, and name -> value; empty if there are none."""
    values = {name.removeprefix(LOG_PREFIX): value for name, value in line.items() if name.startswith(LOG_PREFIX)}
    return {"step": line["step"], **values} if values else {}
