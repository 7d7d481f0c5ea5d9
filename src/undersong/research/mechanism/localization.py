"""Localization of the lost refusal: activation patching by layer (Meng et al. 2022), and single parts of a LoRA adapter
disabled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.models.interventions import replacement
from undersong.predictors.refusal_score import BatchInterventions, refusal_scores
from undersong.statistics.bootstrap import cluster_bootstrap_weights
from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

    from undersong.models.audio_lm import AudioModel


DRAWS = 2000


@dataclass(frozen=True)
class Recovery:
    """Share of the refusal log odds lost by tuning that each of several interventions recovers.

    Attributes:
        refusal_loss: Base minus tuned, mean over clusters, with its 95 % interval.
        share: Recovered share of each intervention (interventions,): 0 as tuned, 1 as the base; NaN if the loss is not
            above 0.
        low: Lower ends of the intervals.
        high: Upper ends of the intervals.
    """

    refusal_loss: tuple[float, float, float]
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def is_measurable(self) -> bool:
        """True if the loss is above 0 by its interval; otherwise nothing can be recovered and `share` is NaN."""
        return self.refusal_loss[1] > 0


def patched_refusal_scores(
    tuned: AudioModel, base_states: np.ndarray, prompts: Sequence[Prompt], tokens: Sequence[int]
) -> np.ndarray:
    """Refusal log odds (layers + 1, prompts) of the tuned model with the base's state patched in at each layer.

    Args:
        tuned: The tuned model.
        base_states: `hidden_states` of the base on the same prompts, (layers + 1, prompts, dim).
        prompts: The prompts.
        tokens: Refusal tokens.
    """

    def patch_layer(layer: int) -> BatchInterventions:
        return lambda rows: {layer: replacement(base_states[layer, list(rows)])}

    return np.stack([refusal_scores(tuned, prompts, tokens, patch_layer(layer)) for layer in range(len(base_states))])


def measure_recovery(
    base: np.ndarray, tuned: np.ndarray, intervened: np.ndarray, clusters: Sequence[str], seed: int = 0
) -> Recovery:
    """Measure how much of the lost refusal log odds each intervention recovers.

    Intervals are by bootstrap over clusters, with a ratio of means in each draw.

    Args:
        base: Log odds of the base, (prompts,).
        tuned: Log odds of the tuned model, (prompts,).
        intervened: Log odds under each intervention, (interventions, prompts).
        clusters: Cluster of each prompt.
        seed: Seed of the bootstrap.
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
    """LoRA layers of each named part: `layer 3` (the third), `q_proj`, `first half`, `second half`.

    Raises:
        UndersongError: The model has no LoRA, or a LoRA layer is not in a block of the decoder.
    """
    from peft.tuners.lora import LoraLayer

    modules_by_location: dict[tuple[int, str], list[LoraLayer]] = {}
    for name, module in model.model.named_modules():
        if isinstance(module, LoraLayer):
            match = LAYER_MODULE_PATTERN.search(name)
            if match is None:
                raise UndersongError(f"LoRA on {name} is in no block of the decoder, so its parts cannot be disabled.")
            modules_by_location.setdefault((int(match[1]), match[2]), []).append(module)
    if not modules_by_location:
        raise UndersongError(f"{model.name} has no LoRA; attach an adapter (a fully tuned decoder has none).")
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
    """Disable these LoRA layers inside the context, and restore them afterwards."""
    scalings = [dict(module.scaling) for module in modules]
    try:
        for module in modules:
            for adapter in module.scaling:
                module.scaling[adapter] = 0.0
        yield
    finally:
        for module, scaling in zip(modules, scalings):
            module.scaling.update(scaling)
