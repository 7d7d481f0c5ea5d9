"""What studies and probes measure alike in one model: its states on contrast and held-out sets, its own refusal
direction, and its drift from the base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.evaluation.contrast_sets import ContrastSets
from undersong.research.mechanism.directions import RefusalDirection, fit_direction
from undersong.research.mechanism.drift import RepresentationDrift, measure_drift
from undersong.research.mechanism.probes import ContrastStates, behavior_ids

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel


@dataclass(frozen=True)
class MechanismMeasurement:
    """Hidden states of one model at the last prompt token, and the direction that its own states give.

    Attributes:
        fit_states: Harmful and benign states of the contrast sets, each (layers + 1, prompts, dim).
        held_out_states: The same of the held-out sets.
        direction: The difference in means of `fit_states`, per layer.
    """

    fit_states: ContrastStates
    held_out_states: ContrastStates
    direction: RefusalDirection


def measure_mechanism(model: AudioModel, fit: ContrastSets, held_out: ContrastSets) -> MechanismMeasurement:
    """Measure a model, base or tuned, on the prompts to fit on and on those to report on."""
    fit_states = contrast_states(model, fit)
    return MechanismMeasurement(fit_states, contrast_states(model, held_out), fit_direction(*fit_states))


def contrast_states(model: AudioModel, sets: ContrastSets) -> ContrastStates:
    """Harmful and benign hidden states, each (layers + 1, prompts, dim) float32."""
    return model.hidden_states(sets.harmful), model.hidden_states(sets.benign)


def held_out_drift(before: ContrastStates, after: ContrastStates, held_out: ContrastSets) -> RepresentationDrift:
    """Drift of the states of all held-out prompts, with intervals over behaviors."""
    joined = [np.concatenate(states, axis=1) for states in (before, after)]
    return measure_drift(joined[0], joined[1], behavior_ids(held_out.samples, "held-out"))
