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

    from undersong.models.adapter import AudioModel
    from undersong.types import Sample


KINDS = ("harmful", "harmless")


@dataclass(frozen=True)
class Contrast:
    """Harmful and matched harmless prompts in one modality, for fitting or held out."""

    harmful: Asked
    harmless: Asked

    @property
    def inputs(self) -> dict[str, Artefact]:
        """What an artefact on these prompts is made from, beside a model."""
        return {"harmful": self.harmful.corpus.artefact, "harmless": self.harmless.corpus.artefact}

    @property
    def samples(self) -> tuple[Sequence[Sample], Sequence[Sample]]:
        """(harmful, harmless), each once and in the order of its corpus."""
        return self.harmful.corpus.samples, self.harmless.corpus.samples

    @property
    def config(self) -> dict[str, Any]:
        """How both are asked: modality, system text and manner, which files such an artefact."""
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


def states(shop: Workshop, arm: Arm, held_out: Contrast, heard: Sequence[Artefact]) -> Artefact:
    """What the base thinks at the last token of the held-out prompts, which tuned models' drift is measured from.

    `states.safetensors`: harmful, harmless (layers + 1, prompts, dim) float32: of a 7B model some 0.4 MB a prompt.
    """
    from undersong.models.folders import model_hash

    def make(draft: Draft) -> None:
        from safetensors.numpy import save_file

        model = shop.model(arm.model, heard)
        with draft.file("states.safetensors") as path:
            save_file(_thought(model, held_out), path)

    config = {**held_out.config, "loading": shop.loading.key}
    inputs: dict[str, Artefact | str] = {"model": model_hash(arm.model), **held_out.inputs}
    return shop.store.get_or_make("states", 1, config, inputs, make, packages=MODEL_PACKAGES)


def _thought(model: AudioModel, sides: Contrast) -> dict[str, np.ndarray]:
    """(layers + 1, prompts, dim) of either kind."""
    return {name: model.hidden(prompts_of([getattr(sides, name)])) for name in KINDS}


def _recognised(
    fit: Contrast, learned: dict[str, np.ndarray], held_out: Contrast, thought: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    from undersong.mechanism.recognition import recognise

    def both(states: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return states["harmful"], states["harmless"]

    decided = recognise(fit.samples, both(learned), held_out.samples, both(thought))
    return {} if decided is None else {"recognised": decided}


def projections(
    shop: Workshop,
    arm: Arm,
    adapter: Artefact | None,
    step: int,
    base_direction: Artefact,
    base_states: Artefact,
    fit: Contrast,
    held_out: Contrast,
    heard: Sequence[Artefact],
) -> Artefact:
    """Held-out prompts along the base's direction, and how far they drifted; the re-fitted direction's cosine; what
    the encoder says now.

    `projections.safetensors`: harmful, harmless (layers + 1, prompts); cosine, drift, drift_low, drift_high, cka
    (layers + 1,); encoder_difference, input_difference (1,); recognised (layers + 1, held-out prompts): what probes
    of this very model decide, where there are prompts enough for one.
    """
    from undersong.models.folders import model_hash

    def make(draft: Draft) -> None:
        import numpy as np
        from safetensors.numpy import load_file, save_file

        from undersong.mechanism import fit_direction, load_direction
        from undersong.mechanism.drift import drift
        from undersong.mechanism.recognition import behaviours
        from undersong.models.adapters import saved_adapter

        fitted = load_direction(base_direction.path / "direction.safetensors")
        before = load_file(base_states.checked().path / "states.safetensors")
        model = shop.model(arm.model, heard)
        with saved_adapter(model, adapter_folder(adapter, step)) as tuned:
            after, learned = _thought(tuned, held_out), _thought(tuned, fit)
            refit = fit_direction(learned["harmful"], learned["harmless"])
            difference = tuned.hearing_difference(
                [s for s in held_out.harmful.corpus.samples if s.audio is not None][:16]
            )
        was, now = (np.concatenate([side[name] for name in KINDS], axis=1) for side in (before, after))
        moved = drift(was, now, behaviours(held_out.samples, "held-out"))
        found = {name: fitted.project(after[name]) for name in KINDS}
        found |= {"cosine": fitted.cosine(refit), "encoder_difference": difference}
        found |= {"drift": moved.relative, "drift_low": moved.low, "drift_high": moved.high, "cka": moved.cka}
        found |= _recognised(fit, learned, held_out, after)
        with draft.file("projections.safetensors") as path:
            save_file({**found, "input_difference": np.array([moved.at_input])}, path)

    config = {**held_out.config, "step": step, "loading": shop.loading.key}
    inputs: dict[str, Artefact | str] = {"model": model_hash(arm.model), "direction": base_direction, **held_out.inputs}
    inputs["states"] = base_states
    if adapter is not None:
        inputs["adapter"] = adapter
    return shop.store.get_or_make("projections", 4, config, inputs, make, packages=MODEL_PACKAGES)
