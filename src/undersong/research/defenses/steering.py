"""Activation steering: choose the layer and strength at which the refusal direction is added to a tuned model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from undersong.research.defenses.context import (
    DefenseContext,
    base_replies,
    fit_refusal_artifact,
    load_refusal_direction,
    mean_reply_loss,
)
from undersong.stages.features import MODEL_PACKAGES
from undersong.store.draft import Draft
from undersong.store.store import Artifact
from undersong.study.defenses import SteeringSettings

# Number of layers tried with whole replies: those at which the base's own refusals and answers are most likely
MAX_LAYERS = 3


def choose_steering(context: DefenseContext, adapter: Artifact, step: int, settings: SteeringSettings) -> Artifact:
    """Artifact with the chosen steering vector (dim,), by its layer (`steering.safetensors`).

    It has no vector if no strength lowered the JSR while enough benign prompts were still answered. `steering.json`
    lists what was tried on the choosing split.

    Args:
        context: Context of the base.
        adapter: The adapter.
        step: Step of the adapter.
        settings: Settings of the steering.
    """
    refusal_artifact = fit_refusal_artifact(context)

    def make(draft: Draft) -> None:
        from safetensors.numpy import save_file

        from undersong.models.interventions import apply_interventions
        from undersong.research.mechanism.direction_selection import add_direction

        choosing_prompts, evaluator, direction = (
            context.contrast_splits()["choose"],
            context.reply_evaluator(),
            load_refusal_direction(refusal_artifact),
        )
        reply_groups = base_replies(refusal_artifact, choosing_prompts)
        with context.adapted_model(adapter, step) as model:
            layers = model.decoder.layers

            def rates_at(layer: int, strength: float) -> dict[str, Any]:
                with apply_interventions(layers, add_direction(direction, layer, strength)([])):
                    return {"layer": layer, "strength": strength, **evaluator.measure_rates(model, choosing_prompts)}

            loss_by_layer = {}
            for layer in np.flatnonzero(np.isfinite(direction.half_distance)).tolist():
                with apply_interventions(layers, add_direction(direction, layer, 1.0)([])):
                    loss_by_layer[layer] = sum(
                        mean_reply_loss(model, prompt_replies) for prompt_replies in reply_groups
                    )
            candidate_layers = sorted(loss_by_layer, key=lambda layer: (loss_by_layer[layer], layer))[:MAX_LAYERS]
            baseline = rates_at(candidate_layers[0], 0.0)
            trials = [rates_at(layer, strength) for layer in candidate_layers for strength in settings.strengths]
        min_answered = baseline["answered"] - settings.max_benign_cost
        eligible = [trial for trial in trials if trial["answered"] >= min_answered and trial["jsr"] < baseline["jsr"]]
        best = min(eligible, key=lambda trial: (trial["jsr"], -trial["answered"], trial["strength"]), default=None)
        vectors = {}
        if best is not None:
            layer = best["layer"]
            vector = best["strength"] * 2 * direction.half_distance[layer] * direction.unit[layer]
            vectors[str(layer)] = vector.astype(np.float32)
        with draft.file("steering.safetensors") as path:
            save_file(vectors, path)
        facts = {"chosen": best, "undefended": baseline, "tried": trials, "cost_at": loss_by_layer}
        with draft.file("steering.json") as path:
            path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    config = {**context.contrast_config, "steering": settings.model_dump(mode="json"), "step": step}
    inputs = {**context.contrast_inputs, "adapter": adapter, "by": refusal_artifact}
    return context.run_context.store.get_or_make("steering", 1, config, inputs, make, packages=MODEL_PACKAGES)
