"""Defenses that edit a trained adapter: Safe LoRA, projection off the refusal direction, and removal of layers.

The result is a PEFT adapter folder.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from undersong.research.defenses.context import (
    DefenseContext,
    base_replies,
    fit_refusal_artifact,
    load_refusal_direction,
    mean_reply_loss,
)
from undersong.stages.context import adapter_step_folder
from undersong.stages.features import MODEL_PACKAGES
from undersong.store.draft import Draft
from undersong.store.store import Artifact, Inputs
from undersong.study.defenses import LayerRemovalSettings, ProjectionSettings

if TYPE_CHECKING:
    from torch import Tensor

    from undersong.models.audio_lm import AudioModel


def project_adapter(context: DefenseContext, adapter: Artifact, step: int, settings: ProjectionSettings) -> Artifact:
    """Artifact with an adapter after Safe LoRA, or projected off the refusal direction; `adapter_edit.json` names what
    changed.

    Args:
        context: Context of the base.
        adapter: The adapter.
        step: Step of the adapter to edit.
        settings: Settings of the projection.
    """
    from undersong.models.refs import model_hash

    projection_source = fit_refusal_artifact(context) if settings.unaligned is None else model_hash(settings.unaligned)

    def make(draft: Draft) -> None:
        from undersong.models.load import load_model
        from undersong.research.defenses.lora_updates import project_off_direction, project_safe_lora, rewrite_adapter

        if isinstance(projection_source, Artifact):
            edit = project_off_direction(load_refusal_direction(projection_source).unit)
        else:
            assert settings.unaligned is not None
            models = context.run_context.model(context.model_record.ref), load_model(settings.unaligned)
            weight_lookups = [partial(_module_weight, model) for model in models]
            edit = project_safe_lora(weight_lookups[0], weight_lookups[1], settings.threshold)
        adapter_path = adapter_step_folder(adapter, step)
        assert adapter_path is not None
        with draft.file(adapter_path.name) as folder:
            changed_modules = rewrite_adapter(adapter_path, folder, edit)
        _write_facts(draft, {"changed_modules": changed_modules})

    config = {
        "projection": settings.model_dump(exclude={"unaligned"}),
        "step": step,
        "loading": context.run_context.loading.cache_key,
    }
    inputs: Inputs = {"model": context.weights_hash, "adapter": adapter, "by": projection_source}
    return context.run_context.store.get_or_make("adapter_edit", 1, config, inputs, make, packages=MODEL_PACKAGES)


def _module_weight(model: AudioModel, path: str) -> Tensor:
    return model.base.get_submodule(path).weight.detach().cpu()


def remove_layers(context: DefenseContext, adapter: Artifact, step: int, settings: LayerRemovalSettings) -> Artifact:
    """Artifact with an adapter without some layers.

    Layers are ranked by how much likelier the base's own refusals become without each (attribution). They are removed
    in this order until the JSR on the choosing split is at most `settings.jsr`; if it never is, the removal with the
    lowest JSR is kept.

    Args:
        context: Context of the base.
        adapter: The adapter.
        step: Step of the adapter to edit.
        settings: Settings of the removal.
    """
    refusal_artifact = fit_refusal_artifact(context)

    def make(draft: Draft) -> None:
        from undersong.research.defenses.lora_updates import rewrite_adapter, zero_layers
        from undersong.research.mechanism.localization import disable_lora_modules, lora_parts

        choosing_prompts, evaluator = context.contrast_splits()["choose"], context.reply_evaluator()
        refusals, _ = base_replies(refusal_artifact, choosing_prompts)
        trials: list[dict[str, Any]] = []
        with context.adapted_model(adapter, step) as model:
            layers = {name: modules for name, modules in lora_parts(model).items() if name.startswith("layer ")}
            refusal_losses = {}
            for name, modules in layers.items():
                with disable_lora_modules(modules):
                    refusal_losses[name] = mean_reply_loss(model, refusals)
            ranking = sorted(layers, key=lambda name: (refusal_losses[name], name))
            for removed_count in range(len(ranking) + 1):
                removed_layers = ranking[:removed_count]
                with disable_lora_modules([module for name in removed_layers for module in layers[name]]):
                    trials.append({"layers": removed_layers, **evaluator.measure_rates(model, choosing_prompts)})
                if trials[-1]["jsr"] <= settings.max_jsr:
                    break
        best_layers = min(trials, key=lambda trial: trial["jsr"])["layers"]  # the fewest layers if the JSR is equal
        adapter_path = adapter_step_folder(adapter, step)
        assert adapter_path is not None
        with draft.file(adapter_path.name) as folder:
            rewrite_adapter(
                adapter_path, folder, zero_layers({int(name.removeprefix("layer ")) - 1 for name in best_layers})
            )
        _write_facts(draft, {"changed_modules": best_layers, "refusal_cost_without": refusal_losses, "tried": trials})

    config = {**context.contrast_config, "removal": settings.model_dump(), "step": step}
    inputs: Inputs = {**context.contrast_inputs, "adapter": adapter, "by": refusal_artifact}
    return context.run_context.store.get_or_make("adapter_edit", 1, config, inputs, make, packages=MODEL_PACKAGES)


def _write_facts(draft: Draft, facts: dict[str, Any]) -> None:
    with draft.file("adapter_edit.json") as path:
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
