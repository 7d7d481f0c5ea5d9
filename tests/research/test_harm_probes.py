"""Probes over contrast sets and held-out prompts, by what samples say of themselves."""

from __future__ import annotations

import numpy as np

from undersong.research.mechanism.probes import (
    MIN_PROBE_BEHAVIORS,
    behavior_ids,
    harm_probe_decision_values,
    harm_probe_scores,
    harmful_labels,
)
from undersong.types import Sample


def sides(count: int, name: str, grouped: bool = False) -> tuple[list[Sample], list[Sample]]:
    """Two voices of each behavior."""
    made = [
        [Sample(f"{i}-{voice}", text="x", group=f"{name} {kind} {i}" if grouped else None)
         for i in range(count) for voice in "AB"]
        for kind in ("harm", "calm")
    ]  # fmt: skip
    return made[0], made[1]


def states(count: int, seed: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Input that never varies, and one layer whose first dimension tells."""
    found = np.random.default_rng(seed).normal(size=(2, 2, 2 * count, 8)).astype(np.float32)
    found[:, 0] = 0
    found[0, 1, :, 0] += apart
    return found[0], found[1]


def test_prompts_of_two_sets_with_one_id_are_two_behaviors() -> None:
    one = [Sample("0", text="x")], [Sample("0", text="x")]
    assert len({*behavior_ids(one, "contrast"), *behavior_ids(one, "held-out")}) == 4
    pair = [Sample("0", text="x", group="a")], [Sample("0", text="x", group="a")]
    assert behavior_ids(pair, "contrast") == ["group a"] * 2
    assert harmful_labels(pair) == [True, False]


def test_what_can_be_told_is_told_of_prompts_that_were_not_learned_from() -> None:
    contrast, held_out = sides(12, "contrast", grouped=True), sides(9, "test", grouped=True)
    for apart, least, most in ((8.0, 0.95, 1.0), (0.0, 0.3, 0.7)):
        decided = harm_probe_decision_values(contrast, states(12, 0, apart), held_out, states(9, 1, apart))
        assert decided is not None
        assert decided.shape == (2, 36)
        assert np.isnan(decided[0]).all()
        scores = harm_probe_scores(decided, contrast, held_out)
        assert least <= scores.late_accuracy.value <= most
        assert (scores.late_p_value <= 0.05) == (apart > 0)
        assert scores.training_cluster_count == 24


def test_too_few_behaviors_have_no_probe() -> None:
    few = sides(MIN_PROBE_BEHAVIORS - 1, "contrast", grouped=True)
    assert (
        harm_probe_decision_values(few, states(MIN_PROBE_BEHAVIORS - 1, 0, 8), sides(9, "test"), states(9, 1, 8))
        is None
    )
