"""The base's refusal direction put back into a tuned model: where, and how strongly, is chosen here."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from undersong.pipeline.defending.bench import Bench, direction_of, likelihood_cost, own_words, refused
from undersong.pipeline.stages import MODEL_PACKAGES
from undersong.store import Artefact, Draft
from undersong.study.defenses import Steering

PLACES = 3  # that whole replies are tried at: those where it makes the base's own refusals and answers likeliest


def steering(bench: Bench, adapter: Artefact, step: int, settings: Steering) -> Artefact:
    """`steering.safetensors`: the vector (dim,) to add, by its place; none where no strength lowered the JSR while
    enough harmless prompts were still answered.  `steering.json`: what was tried on the choosing split."""
    by = refused(bench)

    def make(draft: Draft) -> None:
        from safetensors.numpy import save_file

        from undersong.mechanism.causal import into
        from undersong.mechanism.interventions import changed

        choose, asking, direction = bench.sides()["choose"], bench.asking(), direction_of(by)
        own = own_words(by, choose)
        with bench.tuned(adapter, step) as model:
            layers = model.decoder.layers

            def said(place: int, strength: float) -> dict[str, Any]:
                with changed(layers, into(direction, place, strength)([])):
                    return {"place": place, "strength": strength, **asking.rated(model, choose)}

            costs = {}
            for place in np.flatnonzero(np.isfinite(direction.half)).tolist():
                with changed(layers, into(direction, place, 1.0)([])):
                    costs[place] = sum(likelihood_cost(model, said_by_base) for said_by_base in own)
            places = sorted(costs, key=lambda place: (costs[place], place))[:PLACES]
            plain = said(places[0], 0.0)
            tried = [said(place, strength) for place in places for strength in settings.strengths]
        least = plain["answered"] - settings.unanswered
        fit = [one for one in tried if one["answered"] >= least and one["jsr"] < plain["jsr"]]
        chosen = min(fit, key=lambda one: (one["jsr"], -one["answered"], one["strength"]), default=None)
        vectors = {}
        if chosen is not None:
            place = chosen["place"]
            vector = chosen["strength"] * 2 * direction.half[place] * direction.unit[place]
            vectors[str(place)] = vector.astype(np.float32)
        with draft.file("steering.safetensors") as path:
            save_file(vectors, path)
        facts = {"chosen": chosen, "undefended": plain, "tried": tried, "cost_at": costs}
        with draft.file("steering.json") as path:
            path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    config = {**bench.contrast_config, "steering": settings.model_dump(mode="json"), "step": step}
    inputs = {**bench.contrast_inputs, "adapter": adapter, "by": by}
    return bench.shop.store.get_or_make("steering", 1, config, inputs, make, packages=MODEL_PACKAGES)
