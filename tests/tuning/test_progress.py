"""A training reports each step with its loss."""

from __future__ import annotations

from transformers import TrainerState

from undersong.encoders.batching import Progress
from undersong.tuning.progress import TrainingProgress


def test_each_step_is_reported_with_its_loss() -> None:
    """D4 of the trial: a training of minutes printed nothing. A training that goes on counts its own steps alone."""
    seen: list[Progress] = []
    callback = TrainingProgress(seen.append)
    state = TrainerState(global_step=50, max_steps=52)
    callback.on_train_begin(None, state, None)
    for step, logs in ((51, {"loss": 1.5}), (51, {"validation_loss": 2.0}), (52, {"loss": 1.25})):
        state.global_step = step
        callback.on_log(None, state, None, logs=logs)
    assert [(progress.done, progress.total) for progress in seen] == [(1, 2), (2, 2)]
    assert [progress.note for progress in seen] == [
        "loss 1.500, going on from step 50",
        "loss 1.250, going on from step 50",
    ]
