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

from undersong.store import atomic_replacement
from undersong.tuning.checkpoints import SaveStep, step_folder
from undersong.tuning.reproducibility import eval_mode, temporary_seed
from undersong.types import UndersongError

CANARY_FOLDER = "canary"  # in the Trainer's output folder
LOG_PREFIX = "canary_"  # of what is measured, in the log


@dataclass(frozen=True)
class CanaryCheck:
    """What is measured of a model in training, how often, and how much of it is too much.

    `measure` asks a small fixed list of prompts, harmful and benign, and none that anything is later reported on
    (DESIGN rule 14): stopping by the test prompts would be fitting to them.
    """

    measure: Callable[[], Mapping[str, float]]  # of the model as it is then; name -> value, such as jsr, over_refusal
    limits: Mapping[str, float]  # name -> largest value that is let pass
    every: int = 10  # steps

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UndersongError(f"A canary cannot be asked every {self.every} steps; give 1 or more.")
        if not self.limits or not all(map(isfinite, self.limits.values())):
            raise UndersongError(f"Limits {dict(self.limits)} stop nothing; give a number for at least one name.")

    def exceeded(self, values: Mapping[str, float]) -> list[str]:
        """Names whose value is above its limit."""
        return [name for name, limit in self.limits.items() if values[name] > limit]


class CanaryCallback(TrainerCallback):
    """Measures before the first step, every `watch.every` steps and at the steps `also`; stops where a limit breaks.

    What was learned at the last step that kept all limits lies in `OUTPUT/canary/step-NNNNNN` (`safe` is the step; 0:
    nothing learned), written by `save(step, folder)`, by default the model's `save_pretrained`.  Values stand in the
    Trainer's `log_history` as `canary_NAME`.  Measuring leaves no trace: every module comes back in its mode and the
    global random state as it was; what `measure` itself draws is seeded by the Trainer's seed, alike every time.

    A killed training that goes on knows what was measured up to its state from the state's log, and measures again
    what came after.  No state is saved at a step that breaks a limit, or it would go on from there.  In several
    processes all measure, because a split model answers only so; the first one's values count, and it alone writes.
    Errors: a limit that breaks before anything is learned, a value that is missing or no number.
    """

    def __init__(
        self, check: CanaryCheck, extra_steps: Collection[int] = (), save: Callable[[int, Path], None] | None = None
    ) -> None:
        self.check, self.extra_steps, self.save = check, frozenset(extra_steps), save
        self.measurements: list[dict[str, float]] = []  # one a measurement: step, and name -> value

    @property
    def stop_step(self) -> int | None:
        """The step at which a limit broke."""
        last = self.measurements[-1] if self.measurements else None
        return int(last["step"]) if last is not None and self.check.exceeded(last) else None

    @property
    def last_safe_step(self) -> int:
        """The last step that kept all limits."""
        return max(
            int(measurement["step"]) for measurement in self.measurements if not self.check.exceeded(measurement)
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.measurements = [measurement for line in state.log_history if (measurement := _logged_measurement(line))]
        if self.measurements:
            return  # goes on from a state
        values = self._run_check(args, state, kwargs["model"])
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
        if self.check.exceeded(self._run_check(args, state, kwargs["model"])):
            control.should_training_stop, control.should_save = True, False
        else:
            self._save_snapshot(args, state, kwargs["model"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            _remove_older_snapshots(_snapshot_folder(args, self.last_safe_step))

    def skip_after_stop(self, save_step: SaveStep) -> SaveStep:
        """`keep` that does nothing at a step that broke a limit, where it is called after this callback."""
        return lambda name, write: None if self.stop_step is not None else save_step(name, write)

    def save_last_safe_step(self, output: Path, save_step: SaveStep) -> None:
        """Hands what was learned at the last safe step to `keep`, as the folder of that step."""
        snapshot = output / CANARY_FOLDER / step_folder(self.last_safe_step)
        save_step(snapshot.name, partial(shutil.copytree, snapshot, dirs_exist_ok=True))

    def _run_check(self, args: Any, state: Any, model: Any) -> dict[str, float]:
        """Measures, and notes it."""
        from accelerate.utils import broadcast_object_list

        with eval_mode(model), temporary_seed(args.seed):
            local_values = {name: float(value) for name, value in self.check.measure().items()}
        values: dict[str, float] = broadcast_object_list([local_values])[0]
        for name in {**self.check.limits, **values}:
            if not isfinite(values.get(name, float("nan"))):
                raise UndersongError(
                    f"The canary measured no {name} at step {state.global_step} "
                    f"({values.get(name, 'not among ' + ', '.join(values))}); have it measured, or take off its limit."
                )
        self.measurements.append({"step": state.global_step, **values})
        state.log_history.append({"step": state.global_step, **{LOG_PREFIX + name: values[name] for name in values}})
        return values

    def _save_snapshot(self, args: Any, state: Any, model: Any) -> None:
        """Writes what is learned now; what a saved state would need on going on stays until the next is saved."""
        if not state.is_world_process_zero:
            return
        snapshot = _snapshot_folder(args, state.global_step)
        with atomic_replacement(snapshot) as folder:
            self.save(state.global_step, folder) if self.save else model.save_pretrained(folder)
        if args.save_strategy == "no":
            _remove_older_snapshots(snapshot)


def _snapshot_folder(args: Any, step: int) -> Path:
    return Path(args.output_dir) / CANARY_FOLDER / step_folder(step)


def _remove_older_snapshots(snapshot: Path) -> None:
    for older in snapshot.parent.glob("step-*"):
        if older.name < snapshot.name:
            shutil.rmtree(older)


def _logged_measurement(line: Mapping[str, float]) -> dict[str, float]:
    """What a line of a Trainer's log says of the canary: step, and name -> value; empty: nothing."""
    values = {name.removeprefix(LOG_PREFIX): value for name, value in line.items() if name.startswith(LOG_PREFIX)}
    return {"step": line["step"], **values} if values else {}
