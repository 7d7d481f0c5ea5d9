"""The mechanism stages: fit refusal directions on the base, project held-out prompts before and after tuning.

Knows the store and the mechanism room; the numbers are made there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from undersong.pipeline.stages.answers import Asked, adapter_folder, prompts_of
from undersong.pipeline.stages.arms import Arm
from undersong.pipeline.stages.heard import MODEL_PACKAGES
from undersong.pipeline.workshop import Workshop
from undersong.store import Artefact, Draft

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Contrast:
    """Harmful and matched harmless prompts in one modality, for fitting or held out."""

    harmful: Asked
    harmless: Asked

    @property
    def inputs(self) -> dict[str, Artefact]:
        return {"harmful": self.harmful.corpus.artefact, "harmless": self.harmless.corpus.artefact}

    @property
    def config(self) -> dict[str, Any]:
        asked = self.harmful
        return {"modality": asked.modality, "system": asked.system_text, "manner": list(astuple(asked.manner))}


def direction(shop: Workshop, arm: Arm, contrast: Contrast, heard: Sequence[Artefact]) -> Artefact:
    """Refusal direction per layer of the base model, by difference in means."""
    from undersong.models.folders import model_hash

    def make(draft: Draft) -> None:
        from undersong.mechanism import fit_direction, save_direction

        model = shop.model(arm.model, heard)
        fitted = fit_direction(*(model.hidden(prompts_of([side])) for side in (contrast.harmful, contrast.harmless)))
        with draft.file("direction.safetensors") as path:
            save_direction(fitted, path)

    config = {**contrast.config, "loading": shop.loading.key}
    inputs: dict[str, Artefact | str] = {"model": model_hash(arm.model), **contrast.inputs}
    return shop.store.get_or_make("direction", 2, config, inputs, make, packages=MODEL_PACKAGES)


def projections(
    shop: Workshop,
    arm: Arm,
    adapter: Artefact | None,
    step: int,
    base_direction: Artefact,
    fit: Contrast,
    held_out: Contrast,
    heard: Sequence[Artefact],
) -> Artefact:
    """Held-out prompts along the base's direction; the re-fitted direction's cosine; what the encoder says now.

    `projections.safetensors`: harmful, harmless (layers + 1, prompts), cosine (layers + 1,), encoder_difference (1,).
    """
    from undersong.models.folders import model_hash

    def make(draft: Draft) -> None:
        from safetensors.numpy import save_file

        from undersong.mechanism import fit_direction, load_direction
        from undersong.models.adapters import saved_adapter

        fitted = load_direction(base_direction.path / "direction.safetensors")
        model = shop.model(arm.model, heard)
        with saved_adapter(model, adapter_folder(adapter, step)) as tuned:

            def states(side: Asked) -> np.ndarray:
                return tuned.hidden(prompts_of([side]))

            sides = {name: fitted.project(states(getattr(held_out, name))) for name in ("harmful", "harmless")}
            refit = fit_direction(states(fit.harmful), states(fit.harmless))
            difference = tuned.hearing_difference(
                [s for s in held_out.harmful.corpus.samples if s.audio is not None][:16]
            )
        with draft.file("projections.safetensors") as path:
            save_file({**sides, "cosine": fitted.cosine(refit), "encoder_difference": difference}, path)

    config = {**held_out.config, "step": step, "loading": shop.loading.key}
    inputs: dict[str, Artefact | str] = {"model": model_hash(arm.model), "direction": base_direction, **held_out.inputs}
    if adapter is not None:
        inputs["adapter"] = adapter
    return shop.store.get_or_make("projections", 2, config, inputs, make, packages=MODEL_PACKAGES)
