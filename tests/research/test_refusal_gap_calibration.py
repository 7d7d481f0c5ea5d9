"""Where nothing is planted, nothing is found: over many decoders each claim is made at most as often as 5 % allow.

A count passes unless a one-sided binomial test rejects "at most 5 %" at 1 %: 6 of 40, and slowly 18 of 200.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import REFUSES, Planted, prompts
from scipy.stats import binom

from undersong.predictors.refusal_score import refusal_scores
from undersong.research.mechanism.direction_selection import (
    ablate_direction,
    add_direction,
    random_direction_p_value,
    random_directions,
)
from undersong.research.mechanism.directions import fit_direction, late_gap_p_value
from undersong.research.mechanism.localization import measure_recovery

PLACE = 4
DECODERS = [40, pytest.param(200, marks=pytest.mark.slow)]


def most(decoders: int) -> int:
    return int(binom.isf(0.01, decoders, 0.05))


def sides(split: str, count: int = 24) -> tuple[list, list]:
    return prompts(True, count, split), prompts(False, count, split)


def clusters_of(pair: tuple[list, list]) -> tuple[list[str], list[str]]:
    harmful, harmless = ([prompt.sample.cluster for prompt in side] for side in pair)
    return harmful, harmless


def states_of(model: Planted, pair: tuple[list, list]) -> tuple[np.ndarray, np.ndarray]:
    return model.hidden_states(pair[0]), model.hidden_states(pair[1])


def test_the_count_is_what_the_binomial_test_lets_pass() -> None:
    assert (most(40), most(200)) == (6, 18)


@pytest.mark.parametrize("decoders", DECODERS)
def test_prompts_without_harm_have_no_direction_and_it_causes_nothing(decoders: int) -> None:
    """As `probe` claims it: a direction is only tried where the two kinds lie apart along it.

    Tried all the same, it beat 19 chance directions in .068 of 800 decoders where it was taken out and in .040 where it
    was put in (measured; the noise that chance directions are drawn from is an estimate).
    """
    apart, costs, brings, claims = 0, 0, 0, 0
    for seed in range(decoders):
        model = Planted(seed)
        with torch.no_grad():
            model.whole.harm.zero_()  # harmful and harmless prompts are noise alike
        fit, test = sides(f"fit{seed}"), sides(f"test{seed}")
        fitted = states_of(model, fit)
        direction = fit_direction(*fitted)
        projected = [direction.project(states) for states in states_of(model, test)]
        told = late_gap_p_value((projected[0], projected[1]), clusters_of(test)) <= 0.05
        plain = refusal_scores(model, test[0], [REFUSES])

        def effect(one, taken: bool, model=model, test=test, plain=plain) -> float:
            changes = ablate_direction(one, PLACE, 8) if taken else add_direction(one, PLACE, 1.0)
            moved = refusal_scores(model, test[0], [REFUSES], changes)
            return float((plain - moved if taken else moved - plain).mean())

        others = random_directions(direction, fitted, clusters_of(fit), 19, seed)
        p = [
            random_direction_p_value(effect(direction, taken), [effect(one, taken) for one in others])
            for taken in (True, False)
        ]
        apart, costs, brings = apart + told, costs + (p[0] <= 0.05), brings + (p[1] <= 0.05)
        claims += told and min(p) <= 0.05
    assert apart <= most(decoders)
    assert claims <= most(decoders)
    assert max(costs, brings) <= 0.15 * decoders  # near the level, and no more is claimed of them alone


def blind(model: Planted, seed: int) -> None:
    """Noise for the LoRA that `model` wears that reads nothing of what tells harm: it cannot move the gap."""
    generator = torch.Generator().manual_seed(seed)
    told = model.whole.harm.clone()  # what tells harm, in the states that a layer reads
    with torch.no_grad():
        for block in model.base.model.layers:
            a, b = (getattr(block.write, f"lora_{side}")["default"].weight for side in "AB")
            a.copy_(0.3 * torch.randn(a.shape, generator=generator))
            b.copy_(0.3 * torch.randn(b.shape, generator=generator))
            a -= torch.outer(a @ told, told) / (told @ told)
            told = told + block.write.base_layer(told)


@pytest.mark.parametrize("decoders", DECODERS)
def test_an_adapter_that_reads_nothing_of_harm_suppresses_nothing_and_loses_nothing(decoders: int) -> None:
    changed, lost = 0, 0
    for seed in range(decoders):
        model, fit, test = Planted(seed), sides(f"fit{seed}"), sides(f"test{seed}")
        direction, clusters = fit_direction(*states_of(model, fit)), clusters_of(test)
        before = [direction.project(states) for states in states_of(model, test)]
        base = refusal_scores(model, test[0], [REFUSES])
        with model.wearing(undoes=0.0):
            blind(model, seed)
            after = [direction.project(states) for states in states_of(model, test)]
            tuned = refusal_scores(model, test[0], [REFUSES])
        changed += late_gap_p_value((after[0] - before[0], after[1] - before[1]), clusters) <= 0.05
        lost += measure_recovery(base, tuned, tuned[None], clusters[0]).is_measurable
    assert changed <= most(decoders)
    assert lost <= most(decoders)
