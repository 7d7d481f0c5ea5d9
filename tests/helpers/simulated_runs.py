"""Whole comparisons of arms, made up from a truth that is known: bases, draws, seeds, and prompts in clusters.

A prompt is answered with the chance logistic(arm + base + draw + run + behavior + voice), normal effects all.  The
published runs on one and the same selection gave 3.08 and 37.69 % (`reference/paper.md`), 2.95 apart in logits; with a
run noise of 1 some one pair in twenty-seven is as far apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binom, fisher_exact

from undersong.statistics.multiple_testing import holm
from undersong.statistics.paired import mcnemar_exact
from undersong.statistics.runs import paired_runs

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


@dataclass(frozen=True)
class World:
    """Standard deviations of the effects, in logits, and how many behaviors are asked in how many voices.

    `draw_of_arm`, `base_of_arm`: what draws and bases do to one arm alone.  `behavior_of_arm`: arms that break other
    requests.  Equal for all arms but for `run`, which may be given by arm.
    """

    behaviors: int = 36
    voices: int = 3
    run: float | tuple[float, ...] = 1.0
    base: float = 0.5
    draw: float = 0.3
    base_of_arm: float = 0.0
    draw_of_arm: float = 0.0
    behavior_of_arm: float = 0.0
    behavior: float = 1.5
    voice: float = 0.5

    def spread(self, run: float) -> float:
        """Of the logit of one prompt in one run."""
        parts = (run, self.base, self.draw, self.base_of_arm, self.draw_of_arm, self.behavior_of_arm)
        return float(np.sqrt(np.sum(np.square([*parts, self.behavior, self.voice]))))


@cache
def centre(rate: float, spread: float) -> float:
    """The logit around which normal logits of standard deviation `spread` answer with the chance `rate` on average."""

    def missed(at: float) -> float:
        return float(WEIGHTS @ expit(at + spread * NODES) / WEIGHTS.sum()) - rate

    return float(brentq(missed, -40, 40))


def outcomes(
    world: World, rates: tuple[float, ...], studies: int, units: tuple[int, int, int], rng: np.random.Generator
) -> np.ndarray:
    """(studies, arms, bases, draws, seeds, prompts) of booleans; the arms' true JSRs are `rates`.

    Prompts stand by behavior: those of one are next to each other.
    """
    arms, runs = len(rates), world.run if isinstance(world.run, tuple) else (world.run,) * len(rates)
    bases, draws, seeds = units

    def effect(sd: float, *shape: int) -> np.ndarray:
        return rng.normal(0, sd, (studies, *shape)) if sd else np.zeros((1, *shape))

    at = np.array([centre(rate, world.spread(run)) for rate, run in zip(rates, runs)])[:, None, None, None]
    logit = at + effect(1.0, arms, bases, draws, seeds) * np.array(runs)[:, None, None, None]
    logit = logit + effect(world.base, 1, bases, 1, 1) + effect(world.base_of_arm, arms, bases, 1, 1)
    logit = logit + effect(world.draw, 1, bases, draws, 1) + effect(world.draw_of_arm, arms, bases, draws, 1)
    asked = effect(world.behavior, 1, 1, 1, 1, world.behaviors, 1)
    asked = asked + effect(world.voice, 1, 1, 1, 1, world.behaviors, world.voices)
    asked = asked + effect(world.behavior_of_arm, arms, 1, 1, 1, world.behaviors, 1)
    asked = asked.reshape(*asked.shape[:5], -1)
    chance = expit(logit[..., None] + asked)
    return rng.random(chance.shape) < chance


def ours(rates: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Which comparisons of arms 1, 2, ... with arm 0 are claimed, by `paired_runs` and Holm: (studies, arms - 1).

    `rates` (studies, arms, bases, draws, seeds).  No p is no claim.
    """
    keys = list(np.ndindex(rates.shape[2:]))
    claimed = np.zeros((len(rates), rates.shape[1] - 1), dtype=bool)
    for study, arms in enumerate(rates):
        named = [dict(zip(keys, arm.ravel().tolist())) for arm in arms]
        ps = [paired_runs(named[0], other, level, (-1.0, 1.0)).p for other in named[1:]]
        measured = [p for p in ps if p is not None]
        if measured:
            claimed[study] = [p is not None and p < 1 - level for p in holm(ps)]
    return claimed


def published(answered: np.ndarray, paired: bool = False) -> np.ndarray:
    """The same as `ours` the way the paper's numbers invite: the first run of each arm, prompts as the sample.

    Fisher's exact test of the two counts, or McNemar's of the pairs; neither clusters nor corrects.
    `answered` (studies, arms, bases, draws, seeds, prompts).
    """
    first = answered[:, :, 0, 0, 0]
    if paired:
        only = [(x & ~y).sum(axis=-1) for x, y in ((first[:, :1], first[:, 1:]), (first[:, 1:], first[:, :1]))]
        return np.vectorize(_mcnemar)(*only) < 0.05
    counts = first.sum(axis=-1)
    return np.vectorize(_fisher)(counts[:, :1], counts[:, 1:], first.shape[-1]) < 0.05


@cache
def _mcnemar(b: int, c: int) -> float:
    return mcnemar_exact(int(b), int(c))


@cache
def _fisher(x: int, y: int, n: int) -> float:
    return float(fisher_exact([[x, n - x], [y, n - y]]).pvalue)


def no_more_than(hits: int, trials: int, rate: float = 0.05, strict: float = 0.01) -> bool:
    """Whether a one-sided binomial test at `strict` lets the claim stand that hits come at `rate` or less."""
    return bool(binom.sf(hits - 1, trials, rate) >= strict)
