"""Progress of a training: a callback that reports each step with its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from undersong.encoders.batching import ProgressCallback, ProgressTimer, start_progress

if TYPE_CHECKING:
    from collections.abc import Mapping


class TrainingProgress(TrainerCallback):
    """Reports the step and its loss after every step; in several processes only the first does."""

    def __init__(self, report: ProgressCallback) -> None:
        self._report = report
        self._timer: ProgressTimer | None = None
        self._first_step = 0  # a training that goes on has not taken the earlier steps in this time

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._first_step = state.global_step
        self._timer = start_progress(state.max_steps - self._first_step, self._report)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Report the step that was logged."""
        if self._timer is not None and logs is not None and "loss" in logs and state.is_world_process_zero:
            note = f"loss {logs['loss']:.3f}" + (f", going on from step {self._first_step}" if self._first_step else "")
            self._timer.update(state.global_step - self._first_step, note)
