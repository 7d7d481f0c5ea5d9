"""Localization of the lost refusal: activation patching by layer (Meng et al.

2022), and single parts of a LoRA adapter switched off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.mechanism.interventions import replacement
from undersong.mechanism.refusal_score import BatchInterventions, refusal_scores
from undersong.statistics import cluster_bootstrap_weights
from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

    from undersong.models.audio_lm import AudioModel


DRAWS = 2000


@dataclass(frozen=True)
class Recovery:
    """How much of what the tuning took from the refusal's log odds a change gives back, of several changes.

    `lost`: base less tuned, mean over clusters, with its 95 % interval.  `share`, `low`, `high` (changes,): 0 is as
    tuned, 1 as the base; NaN where the loss is not above 0, so that there is nothing to give back.
    """

    refusal_loss: tuple[float, float, float]
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def is_measurable(self) -> bool:
        """Whether the loss is above 0 by its interval; else there is nothing to give back, and `share` is NaN."""
        return self.refusal_loss[1] > 0


def patched_refusal_scores(
    tuned: AudioModel, base_states: np.ndarray, prompts: Sequence[Prompt], tokens: Sequence[int]
) -> np.ndarray:
    """(layers + 1, prompts): refusal log odds of `tuned` with the base's state at each place, from the input on.

    `base_states` (layers + 1, prompts, dim): `hidden` of the base on the same prompts.
    """

    def patch_layer(layer: int) -> BatchInterventions:
        return lambda rows: {layer: replacement(base_states[layer, list(rows)])}

    return np.stack([refusal_scores(tuned, prompts, tokens, patch_layer(layer)) for layer in range(len(base_states))])


def measure_recovery(
    base: np.ndarray, tuned: np.ndarray, intervened: np.ndarray, clusters: Sequence[str], seed: int = 0
) -> Recovery:
    """From log odds of the base and the tuned model (prompts,) and under each change (changes, prompts).

    Intervals by bootstrap over clusters, a ratio of means in each draw.
    """
    losses, gains = base - tuned, intervened - tuned
    counts = np.stack(list(cluster_bootstrap_weights(clusters, DRAWS, seed)))
    resampled_means = counts @ np.vstack([losses, gains]).T / counts.sum(axis=1, keepdims=True)
    low, high = np.percentile(resampled_means[:, 0], [2.5, 97.5])
    undefined = np.full(len(intervened), np.nan)
    if low <= 0 or len(set(clusters)) < 2:
        return Recovery((float(losses.mean()), float(low), float(high)), undefined, undefined, undefined)
    ratios = resampled_means[:, 1:] / np.where(resampled_means[:, :1] > 0, resampled_means[:, :1], np.nan)
    interval_ends = np.nanpercentile(ratios, [2.5, 97.5], axis=0)
    return Recovery(
        (float(losses.mean()), float(low), float(high)),
        gains.mean(axis=1) / losses.mean(),
        interval_ends[0],
        interval_ends[1],
    )


LAYER_MODULE_PATTERN = re.compile(r"\.layers\.(\d+)\.(?:.*\.)?(\w+)$")


def lora_parts(model: AudioModel) -> dict[str, list[LoraLayer]]:
    """Name of a part -> its LoRA layers: `layer 3` (the third), `q_proj`, `first half`, `second half`.

    Raises UndersongError where none is, or where a LoRA layer is not in a block of the decoder.
    """
    from peft.tuners.lora import LoraLayer

    modules_by_location: dict[tuple[int, str], list[LoraLayer]] = {}
    for name, module in model.model.named_modules():
        if isinstance(module, LoraLayer):
            match = LAYER_MODULE_PATTERN.search(name)
            if match is None:
                raise UndersongError(f"LoRA on {name} is in no block of the decoder; it cannot be taken apart.")
            modules_by_location.setdefault((int(match[1]), match[2]), []).append(module)
    if not modules_by_location:
        raise UndersongError(f"{model.name} wears no LoRA to take apart; put one on (a decoder tuned whole has none).")
    parts: dict[str, list[LoraLayer]] = {f"layer {layer + 1}": [] for layer, _ in sorted(modules_by_location)}
    parts |= {module_type: [] for module_type in sorted({kind for _, kind in modules_by_location})} | {
        "first half": [],
        "second half": [],
    }
    for (layer, module_type), modules in modules_by_location.items():
        half = "first half" if layer < model.layers / 2 else "second half"
        for name in (f"layer {layer + 1}", module_type, half):
            parts[name] += modules
    return {name: modules for name, modules in parts.items() if modules}


@contextmanager
def disable_lora_modules(modules: Sequence[LoraLayer]) -> Iterator[None]:
    """These LoRA layers add nothing; afterwards they add what they did."""
    scalings = [dict(module.scaling) for module in modules]
    try:
        for module in modules:
            for adapter in module.scaling:
                module.scaling[adapter] = 0.0
        yield
    finally:
        for module, scaling in zip(modules, scalings):
            module.scaling.update(scaling)
