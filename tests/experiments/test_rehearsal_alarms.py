"""False alarms of a check's rehearsal, counted on rehearsals whose truth is known."""

from __future__ import annotations

import numpy as np

from experiments.check.rehearsal_alarms import false_alarm_rates
from undersong.predictors.rehearsal import Rehearsal

BEHAVIORS, SEEDS = 20, 40


def pairs(shift: float) -> list[tuple[Rehearsal, Rehearsal]]:
    """Rehearsals whose losses vary over seeds and requests, those on the data by `shift` larger."""
    rng = np.random.default_rng(0)
    clusters = tuple(f"b{i // 3}" for i in range(3 * BEHAVIORS))
    before = tuple(np.zeros(len(clusters)))

    def rehearsal(extra: float) -> Rehearsal:
        losses = extra + 0.3 * rng.normal() + 0.5 * rng.normal(size=len(clusters))
        return Rehearsal(8, before, tuple(-losses), clusters)

    return [(rehearsal(shift), rehearsal(0.0)) for _ in range(SEEDS)]


def test_equal_data_are_seldom_more_and_worse_data_always() -> None:
    assert max(false_alarm_rates(pairs(0.0), trials=300).values()) <= 0.06
    worse = false_alarm_rates(pairs(3.0), trials=100)
    assert worse[3] == worse[5] == 1.0
