"""Mixing of safety data: a small share of refusals among the benign training samples (Bianchi et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TypeVar

import numpy as np

from undersong.tuning.reproducibility import sample_order
from undersong.types import Prompt, UndersongError

MIXING_STREAM = 0x5AFE  # a separate random stream, so that mixing does not change the order of benign samples
NO_SAFETY_DATA = "There is no safety data to mix in; give harmful prompts with refusals."
PairT = TypeVar("PairT")


@dataclass(frozen=True)
class SafetyMixing:
    """Harmful prompts, the refusal for each, and the `share` of all training samples that they make up."""

    prompts: Sequence[Prompt]
    targets: Sequence[str]
    share: float  # above 0, at most 0.5

    def __post_init__(self) -> None:
        _check_share(self.share)
        if not self.prompts:
            raise UndersongError(NO_SAFETY_DATA)
        if len(self.prompts) != len(self.targets):
            raise UndersongError(
                f"{len(self.prompts)} safety prompts have {len(self.targets)} refusals; give one refusal per prompt."
            )
        empty = [prompt.sample.id for prompt, target in zip(self.prompts, self.targets) if not target.strip()]
        if empty:
            raise UndersongError(
                f"Safety prompt {empty[0]} has no refusal to train on ({len(empty)} such); give one, or leave it out."
            )

    @property
    def pairs(self) -> list[tuple[Prompt, str]]:
        """(prompt, refusal), in order."""
        return list(zip(self.prompts, self.targets))


def mix_safety_pairs(benign: Sequence[PairT], safety: Sequence[PairT], share: float, seed: int) -> list[PairT]:
    """Mix safety pairs into the benign training samples; the result is as long as `benign`.

    The share is that of the samples *seen* in training, not of the data set. Training is cut into stretches of 1/share
    samples (in whole numbers), with one safety pair at a random position of each. So n samples contain n * share of
    them, rounded up or down. A longer training begins like a shorter one, and steps, batch and learning rate do not
    change.

    Safety pairs delay the benign ones and replace none: those keep their order without a gap, and the ones past the end
    are dropped. Safety pairs come in whole shuffles, like benign samples.

    Args:
        benign: The benign pairs, in training order.
        safety: The safety pairs.
        share: Share of safety pairs, in (0, 0.5].
        seed: Seed of their positions and order.

    Raises:
        UndersongError: A share outside (0, 0.5], no safety pairs, or a training so short that it might contain none.
    """
    _check_share(share)
    if not safety:
        raise UndersongError(NO_SAFETY_DATA)
    if len(benign) < int(1 / _exact_fraction(share)):
        raise UndersongError(
            f"A training of {len(benign)} samples is too short for a share of {share:g}; give more steps, or a larger "
            "share."
        )
    positions = _safety_positions(len(benign), share, seed)
    safety_indices = iter(sample_order(len(safety), len(positions), [MIXING_STREAM + 1, seed]))
    benign_pairs = iter(benign)
    return [
        safety[next(safety_indices)] if position in positions else next(benign_pairs) for position in range(len(benign))
    ]


def _safety_positions(length: int, share: float, seed: int) -> set[int]:
    """One random position in every stretch; training may end before that of the last one."""
    rng, stretch = np.random.default_rng([MIXING_STREAM, seed]), 1 / _exact_fraction(share)
    starts = [int(number * stretch) for number in range(int(length / stretch) + 2)]
    positions = [int(rng.integers(start, end)) for start, end in pairwise(starts)]
    return {position for position in positions if position < length}


def _exact_fraction(share: float) -> Fraction:
    """The share as a decimal fraction, so that 1/0.07 is cut as in arithmetic by hand."""
    return Fraction(str(share))


def _check_share(share: float) -> None:
    if not 0 < share <= 0.5:
        raise UndersongError(f"A share of {share:g} cannot be safety data; give one above 0 and at most 0.5.")
