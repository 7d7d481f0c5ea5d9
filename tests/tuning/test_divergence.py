"""A training that diverged with finite numbers is told from its log."""

from __future__ import annotations

import numpy as np
import pytest

from undersong.tuning.divergence import MIN_STEPS, divergence


def log_of(losses: list[float], gradient: float = 1.0) -> list[dict[str, float]]:
    return [{"step": i + 1, "loss": loss, "grad_norm": gradient} for i, loss in enumerate(losses)]


def test_a_loss_that_rises_has_diverged() -> None:
    assert divergence(log_of([2.0, 1.5, 1.0, 1.0, 7.0, 9.0, 9.0, 9.0])) == "its loss rose from 1 to 9"


def test_a_dead_network_has_diverged() -> None:
    """As the organism's after a learning rate of 1000: at chance from the second step on."""
    assert divergence(log_of([5.8] * 12, gradient=0.0)) == "its gradients are 0 at a loss of 5.8"
    assert divergence(log_of([0.0] * 12, gradient=0.0)) is None  # it has learned all there is


@pytest.mark.parametrize("steps", [8, 40, 400])
def test_a_noisy_training_that_learns_or_does_not_has_not(steps: int) -> None:
    rng = np.random.default_rng(0)
    for start, end in ((4.0, 0.1), (2.0, 2.0)):
        for _ in range(50):
            losses = np.linspace(start, end, steps) * rng.gamma(4, 1 / 4, steps)
            assert divergence(log_of(list(losses))) is None


def test_a_few_steps_say_nothing() -> None:
    assert divergence(log_of([0.0] + [9.0] * (MIN_STEPS - 2))) is None
