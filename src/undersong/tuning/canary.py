"""Early stop by what the model says: a few fixed prompts are asked while it trains, and it stops where a limit breaks.

`Canary` goes into any `transformers.Trainer`.  Knows a function that measures; no prompts, judges or adapters.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from undersong.store import replacing
from undersong.tuning.modes import in_eval
from undersong.tuning.seeds import seeded
from undersong.tuning.states import Keeping, step_folder
from undersong.types import UndersongError

FOLDER = "canary"  # in the Trainer's output folder
PREFIX = "canary_"  # of what is measured, in the log


@dataclass(frozen=True)
class Watch:
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


class Canary(TrainerCallback):
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
        self, watch: Watch, also: Collection[int] = (), save: Callable[[int, Path], None] | None = None
    ) -> None:
        self.watch, self.also, self.save = watch, frozenset(also), save
        self.watched: list[dict[str, float]] = []  # one a measurement: step, and name -> value

    @property
    def stopped(self) -> int | None:
        """The step at which a limit broke."""
        last = self.watched[-1] if self.watched else None
        return int(last["step"]) if last is not None and self.watch.exceeded(last) else None

    @property
    def safe(self) -> int:
        """The last step that kept all limits."""
        return max(int(one["step"]) for one in self.watched if not self.watch.exceeded(one))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.watched = [found for line in state.log_history if (found := _measured(line))]
        if self.watched:
            return  # goes on from a state
        values = self._ask(args, state, kwargs["model"])
        if broken := self.watch.exceeded(values):
            name = broken[0]
            raise UndersongError(
                f"Before training the model has {name} {values[name]:g}, above its limit of "
                f"{self.watch.limits[name]:g}; raise the limit, or take another model or list of prompts."
            )
        self._put_aside(args, state, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.watch.every and state.global_step not in self.also:
            return
        if self.watch.exceeded(self._ask(args, state, kwargs["model"])):
            control.should_training_stop, control.should_save = True, False
        else:
            self._put_aside(args, state, kwargs["model"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            _forget_before(_aside(args, self.safe))

    def unless_stopped(self, keep: Keeping) -> Keeping:
        """`keep` that does nothing at a step that broke a limit, where it is called after this callback."""
        return lambda name, write: None if self.stopped is not None else keep(name, write)

    def keep_safe(self, output: Path, keep: Keeping) -> None:
        """Hands what was learned at the last safe step to `keep`, as the folder of that step."""
        made = output / FOLDER / step_folder(self.safe)
        keep(made.name, partial(shutil.copytree, made, dirs_exist_ok=True))

    def _ask(self, args: Any, state: Any, model: Any) -> dict[str, float]:
        """Measures, and notes it."""
        from accelerate.utils import broadcast_object_list

        with in_eval(model), seeded(args.seed):
            here = {name: float(value) for name, value in self.watch.measure().items()}
        values: dict[str, float] = broadcast_object_list([here])[0]
        for name in {**self.watch.limits, **values}:
            if not isfinite(values.get(name, float("nan"))):
                raise UndersongError(
                    f"The canary measured no {name} at step {state.global_step} "
                    f"({values.get(name, 'not among ' + ', '.join(values))}); have it measured, or take off its limit."
                )
        self.watched.append({"step": state.global_step, **values})
        state.log_history.append({"step": state.global_step, **{PREFIX + name: values[name] for name in values}})
        return values

    def _put_aside(self, args: Any, state: Any, model: Any) -> None:
        """Writes what is learned now; what a saved state would need on going on stays until the next is saved."""
        if not state.is_world_process_zero:
            return
        made = _aside(args, state.global_step)
        with replacing(made) as folder:
            self.save(state.global_step, folder) if self.save else model.save_pretrained(folder)
        if args.save_strategy == "no":
            _forget_before(made)


def _aside(args: Any, step: int) -> Path:
    return Path(args.output_dir) / FOLDER / step_folder(step)


def _forget_before(made: Path) -> None:
    for older in made.parent.glob("step-*"):
        if older.name < made.name:
            shutil.rmtree(older)


def _measured(line: Mapping[str, float]) -> dict[str, float]:
    """What a line of a Trainer's log says of the canary: step, and name -> value; empty: nothing."""
    found = {name.removeprefix(PREFIX): value for name, value in line.items() if name.startswith(PREFIX)}
    return {"step": line["step"], **found} if found else {}
