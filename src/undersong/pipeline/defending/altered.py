"""Defenses of a trained adapter: projected, or without the layers that carry the loss.  Each is an adapter again."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from undersong.pipeline.defending.bench import Bench, direction_of, likelihood_cost, own_words, refused
from undersong.pipeline.stages import MODEL_PACKAGES, adapter_folder
from undersong.pipeline.workshop import Inputs
from undersong.store import Artefact, Draft
from undersong.study.defenses import Projection, Removal

if TYPE_CHECKING:
    from torch import Tensor

    from undersong.models.adapter import AudioModel


def projected(bench: Bench, adapter: Artefact, step: int, settings: Projection) -> Artefact:
    """The adapter of `step` after Safe LoRA, or off the refusal direction; `altered.json` names what was changed."""
    from undersong.models.folders import model_hash

    by = refused(bench) if settings.unaligned is None else model_hash(settings.unaligned)

    def make(draft: Draft) -> None:
        from undersong.defenses.projection import aligned, off_direction
        from undersong.defenses.updates import rewrite
        from undersong.models.load import load_model

        if isinstance(by, Artefact):
            change = off_direction(direction_of(by).unit)
        else:
            assert settings.unaligned is not None
            models = bench.shop.model(bench.model.ref), load_model(settings.unaligned)
            weights = [partial(_weight, model) for model in models]
            change = aligned(weights[0], weights[1], settings.threshold)
        source = adapter_folder(adapter.checked(), step)
        assert source is not None
        with draft.file(source.name) as folder:
            changed = rewrite(source, folder, change)
        _write(draft, {"changed": changed})

    config = {"projection": settings.model_dump(exclude={"unaligned"}), "step": step, "loading": bench.shop.loading.key}
    inputs: Inputs = {"model": bench.hash, "adapter": adapter, "by": by}
    return bench.shop.store.get_or_make("altered", 1, config, inputs, make, packages=MODEL_PACKAGES)


def _weight(model: AudioModel, path: str) -> Tensor:
    return model.base.get_submodule(path).weight.detach().cpu()


def removed(bench: Bench, adapter: Artefact, step: int, settings: Removal) -> Artefact:
    """The adapter of `step` without some layers.

    Layers are ranked by how much likelier the base's own refusals become without each (attribution), and taken off from
    the first on until the JSR on the choosing split is at most `settings.jsr`; where it never is, at its least.
    """
    by = refused(bench)

    def make(draft: Draft) -> None:
        from undersong.defenses.projection import without_layers
        from undersong.defenses.updates import rewrite
        from undersong.mechanism.parts import parts_of, without

        choose, asking = bench.sides()["choose"], bench.asking()
        refusals, _ = own_words(by, choose)
        tried: list[dict[str, Any]] = []
        with bench.tuned(adapter, step) as model:
            layers = {name: modules for name, modules in parts_of(model).items() if name.startswith("layer ")}
            cost = {}
            for name, modules in layers.items():
                with without(modules):
                    cost[name] = likelihood_cost(model, refusals)
            order = sorted(layers, key=lambda name: (cost[name], name))
            for count in range(len(order) + 1):
                off = order[:count]
                with without([module for name in off for module in layers[name]]):
                    tried.append({"layers": off, **asking.rated(model, choose)})
                if tried[-1]["jsr"] <= settings.jsr:
                    break
        chosen = min(tried, key=lambda one: one["jsr"])["layers"]  # of equal ones the fewest layers
        source = adapter_folder(adapter.checked(), step)
        assert source is not None
        with draft.file(source.name) as folder:
            rewrite(source, folder, without_layers({int(name.removeprefix("layer ")) - 1 for name in chosen}))
        _write(draft, {"changed": chosen, "refusal_cost_without": cost, "tried": tried})

    config = {**bench.contrast_config, "removal": settings.model_dump(), "step": step}
    inputs: Inputs = {**bench.contrast_inputs, "adapter": adapter, "by": by}
    return bench.shop.store.get_or_make("altered", 1, config, inputs, make, packages=MODEL_PACKAGES)


def _write(draft: Draft, facts: dict[str, Any]) -> None:
    with draft.file("altered.json") as path:
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
