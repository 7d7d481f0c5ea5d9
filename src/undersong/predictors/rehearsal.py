"""Rehearsal: a few training steps on candidate data, and the loss of refusal margin on the reference harm set.

A rehearsal trains a fresh LoRA, measures, and throws the adapter away. The harm set is the reference, so nothing that
the model is tested on later is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undersong.evaluation.refusal_margin import MarginSettings, refusal_margins
from undersong.predictors.registry import DEFAULT_PREDICTOR_SETTINGS, PredictorSettings
from undersong.statistics.bootstrap import Interval
from undersong.statistics.paired import compare_paired
from undersong.statistics.rates import clustered_mean
from undersong.statistics.runs import crossed_mean
from undersong.tuning.config import LoraRecipe
from undersong.tuning.reproducibility import temporary_seed
from undersong.tuning.train import finetune_decoder
from undersong.types import Prompt, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

REHEARSAL_STEPS = 8


@dataclass(frozen=True)
class RehearsalSeconds:
    """Seconds that a rehearsal took: its training, and measuring the reference harm set after it."""

    training: float
    measuring: float


@dataclass(frozen=True)
class Rehearsal:
    """Refusal margins of the reference harm set before and after a short training, in nats."""

    steps: int
    before: tuple[float, ...]
    after: tuple[float, ...]
    clusters: tuple[str, ...]
    seconds: RehearsalSeconds | None = field(default=None, compare=False)  # None if it was read from a store

    @property
    def loss(self) -> Interval:
        """Mean loss of margin over the harm set, with its 95 % interval over behaviors; positive: it refuses less.

        The interval is about prompts. It says nothing about other seeds of the training.
        """
        return clustered_mean(self.losses, self.clusters)

    @property
    def losses(self) -> tuple[float, ...]:
        """Loss of margin of each reference prompt, in nats."""
        return tuple(before - after for before, after in zip(self.before, self.after))


def mean_margin_loss(rehearsals: Sequence[Rehearsal], comparisons: Sequence[Sequence[Rehearsal]] = ()) -> Interval:
    """Mean loss of margin over rehearsals of one set with several seeds, less the mean loss of comparison sets.

    The 95 % interval is over behaviors and, with several seeds, over seeds too.

    Args:
        rehearsals: Rehearsals of the set, one for each seed.
        comparisons: Rehearsals of each comparison set, with the same seeds in the same order.
    """
    losses = np.array([rehearsal.losses for rehearsal in rehearsals])
    if comparisons:
        losses = losses - np.mean([[rehearsal.losses for rehearsal in runs] for runs in comparisons], axis=0)
    return crossed_mean(losses, rehearsals[0].clusters)


def compliance_change(rehearsals: Sequence[Rehearsal]) -> Interval:
    """Change in the share of reference prompts that the model would rather comply with (margin below 0).

    With one seed, the 95 % interval is that of a paired comparison over behaviors. With several, it is over behaviors
    and seeds; there is none if no prompt changed in any of them.
    """
    before, *after = (
        np.array(margins) < 0 for margins in (rehearsals[0].before, *(rehearsal.after for rehearsal in rehearsals))
    )
    if len(after) == 1:
        comparison = compare_paired(before, after[0], rehearsals[0].clusters)
        return Interval(comparison.difference, comparison.clustered_low, comparison.clustered_high)
    changes = np.array(after, dtype=float) - before
    change = crossed_mean(changes, rehearsals[0].clusters)
    return change if np.ptp(changes) > 0 else Interval(change.value, None, None)


def rehearse(
    model: AudioModel,
    samples: Sequence[Sample],
    reference: Sequence[Sample],
    recipe: LoraRecipe,
    settings: PredictorSettings = DEFAULT_PREDICTOR_SETTINGS,
    steps: int = REHEARSAL_STEPS,
    before: Sequence[float] | None = None,
) -> Rehearsal:
    """Train the model for a few steps on samples, and measure the refusal margin of a reference harm set.

    Args:
        model: The base, with the audio features of samples and reference.
        samples: Candidate training data, with their replies.
        reference: The reference harm set, with replies that comply where they are known.
        recipe: The recipe that the training would have; its steps are replaced.
        settings: Prompts, seed, the reply column, and the refusals where they are known word for word.
        steps: Optimizer steps.
        before: Margins of the reference before training, if they are known already (`reference_margins`).

    Raises:
        UndersongError: There is nothing to train on, or a reference prompt has no refusal margin.
    """
    if before is None:
        before = reference_margins(model, reference, settings)
    after: list[float] = []
    start, measuring = time.monotonic(), 0.0

    def measure(_name: str, _write: Callable[[Path], None]) -> None:
        nonlocal measuring
        trained = time.monotonic()
        after.extend(reference_margins(model, reference, settings))
        measuring = time.monotonic() - trained

    finetune_decoder(
        model,
        settings.prompts(samples, harmful=False),
        settings.replies(samples),
        replace(recipe, save_steps=(steps,), validation_share=0.0),
        settings.seed,
        measure,
    )
    seconds = RehearsalSeconds(time.monotonic() - start - measuring, measuring)
    return Rehearsal(steps, tuple(before), tuple(after), tuple(sample.cluster for sample in reference), seconds)


def reference_margins(
    model: AudioModel, reference: Sequence[Sample], settings: PredictorSettings = DEFAULT_PREDICTOR_SETTINGS
) -> list[float]:
    """Refusal margins of a reference harm set by the model as it is now, in nats.

    Raises:
        UndersongError: The harm set is empty, or a prompt has no refusal margin.
    """
    if not reference:
        raise UndersongError("A rehearsal is measured on a reference harm set, and this one is empty.")
    prompts: list[Prompt] = settings.prompts(reference, harmful=True)
    with temporary_seed(settings.seed):  # measuring draws no number of the training's
        margins = refusal_margins(model, prompts, MarginSettings(settings.refusal_texts))
    for prompt, margin in zip(prompts, margins):
        if margin is None:
            raise UndersongError(
                f"Reference prompt {prompt.sample.id} has no refusal margin by {model.name}: give it a compliant "
                "answer that does not begin as the refusals do, or leave --refusal-text out."
            )
    return [margin for margin in margins if margin is not None]
