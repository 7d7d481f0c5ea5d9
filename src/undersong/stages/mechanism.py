"""Mechanism stages: refusal directions of the base model, and held-out prompts projected on them before and after
tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from undersong.stages.context import RunContext
from undersong.stages.features import MODEL_PACKAGES
from undersong.stages.replies import PromptSetRequest, adapter_step_folder, request_prompts
from undersong.stages.training import StudyArm
from undersong.store import Artifact, Draft

if TYPE_CHECKING:
    import numpy as np

    from undersong.models.audio_lm import AudioModel
    from undersong.types import Sample


CONTRAST_KINDS = ("harmful", "harmless")


@dataclass(frozen=True)
class ContrastRequests:
    """Harmful and matched benign prompts in one modality, for fitting or held out."""

    harmful: PromptSetRequest
    harmless: PromptSetRequest

    @property
    def inputs(self) -> dict[str, Artifact]:
        """Cache-key inputs of an artifact on these prompts, without the model."""
        return {"harmful": self.harmful.corpus.artifact, "harmless": self.harmless.corpus.artifact}

    @property
    def samples(self) -> tuple[Sequence[Sample], Sequence[Sample]]:
        """Samples (harmful, benign), each once and in the order of its corpus."""
        return self.harmful.corpus.samples, self.harmless.corpus.samples

    @property
    def config(self) -> dict[str, Any]:
        """Modality, system prompt and prompt settings of both sets, as part of a cache key."""
        request = self.harmful
        return {
            "modality": request.modality,
            "system": request.system_text,
            "manner": list(astuple(request.prompt_settings)),
        }


def fit_base_direction(
    ctx: RunContext, arm: StudyArm, contrast: ContrastRequests, features: Sequence[Artifact]
) -> Artifact:
    """Artifact with the refusal direction of each layer of the base model, by difference in means.

    Args:
        ctx: The run context.
        arm: The base.
        contrast: Contrast sets to fit on.
        features: Their audio features.
    """
    from undersong.models.refs import model_hash

    def make(draft: Draft) -> None:
        from undersong.mechanism import fit_direction, save_direction

        model = ctx.model(arm.model, features)
        refusal_direction = fit_direction(
            *(model.hidden_states(request_prompts([request])) for request in (contrast.harmful, contrast.harmless))
        )
        with draft.file("direction.safetensors") as path:
            save_direction(refusal_direction, path)

    config = {**contrast.config, "loading": ctx.loading.cache_key}
    inputs: dict[str, Artifact | str] = {"model": model_hash(arm.model), **contrast.inputs}
    return ctx.store.get_or_make("direction", 2, config, inputs, make, packages=MODEL_PACKAGES)


def compute_hidden_states(
    ctx: RunContext, arm: StudyArm, held_out_requests: ContrastRequests, features: Sequence[Artifact]
) -> Artifact:
    """Artifact with the base's hidden states at the last token of the held-out prompts, from which drift is measured.

    `states.safetensors` holds harmful and harmless, (layers + 1, prompts, dim) float32; for a 7B model about 0.4 MB per
    prompt.

    Args:
        ctx: The run context.
        arm: The base.
        held_out_requests: Held-out contrast sets.
        features: Their audio features.
    """
    from undersong.models.refs import model_hash

    def make(draft: Draft) -> None:
        from safetensors.numpy import save_file

        model = ctx.model(arm.model, features)
        with draft.file("states.safetensors") as path:
            save_file(_hidden_states(model, held_out_requests), path)

    config = {**held_out_requests.config, "loading": ctx.loading.cache_key}
    inputs: dict[str, Artifact | str] = {"model": model_hash(arm.model), **held_out_requests.inputs}
    return ctx.store.get_or_make("states", 1, config, inputs, make, packages=MODEL_PACKAGES)


def _hidden_states(model: AudioModel, contrast: ContrastRequests) -> dict[str, np.ndarray]:
    """Hidden states (layers + 1, prompts, dim) of either kind."""
    return {name: model.hidden_states(request_prompts([getattr(contrast, name)])) for name in CONTRAST_KINDS}


def _probe_decisions(
    fit_requests: ContrastRequests,
    fit_states: dict[str, np.ndarray],
    held_out_requests: ContrastRequests,
    held_out_states: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    from undersong.mechanism.probes import harm_probe_decision_values

    def state_pair(states: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return states["harmful"], states["harmless"]

    decisions = harm_probe_decision_values(
        fit_requests.samples, state_pair(fit_states), held_out_requests.samples, state_pair(held_out_states)
    )
    return {} if decisions is None else {"recognised": decisions}


def project_held_out(
    ctx: RunContext,
    arm: StudyArm,
    adapter: Artifact | None,
    step: int,
    base_direction: Artifact,
    base_states: Artifact,
    fit_requests: ContrastRequests,
    held_out_requests: ContrastRequests,
    features: Sequence[Artifact],
) -> Artifact:
    """Artifact with projections of the held-out prompts on the base's direction, and their drift.

    `projections.safetensors` holds harmful and harmless (layers + 1, prompts); cosine (with the refitted direction),
    drift, drift_low, drift_high and cka (layers + 1,); encoder_difference and input_difference (1,); and recognised
    (layers + 1, held-out prompts): decisions of probes fitted on this model, if there are enough prompts.

    Args:
        ctx: The run context.
        arm: The arm.
        adapter: Its adapter; None for the base.
        step: Step of the adapter.
        base_direction: Direction of the base.
        base_states: Hidden states of the base.
        fit_requests: Contrast sets to fit on.
        held_out_requests: Held-out contrast sets.
        features: Audio features.
    """
    from undersong.models.refs import model_hash

    def make(draft: Draft) -> None:
        import numpy as np
        from safetensors.numpy import load_file, save_file

        from undersong.mechanism import fit_direction, load_direction
        from undersong.mechanism.drift import measure_drift
        from undersong.mechanism.probes import behavior_ids
        from undersong.models.lora import use_adapter

        refusal_direction = load_direction(base_direction.path / "direction.safetensors")
        states_before = load_file(base_states.verify().path / "states.safetensors")
        model = ctx.model(arm.model, features)
        with use_adapter(model, adapter_step_folder(adapter, step)) as adapted:
            states_after, fit_states = _hidden_states(adapted, held_out_requests), _hidden_states(adapted, fit_requests)
            refitted_direction = fit_direction(fit_states["harmful"], fit_states["harmless"])
            encoder_difference = adapted.max_encoding_difference(
                [s for s in held_out_requests.harmful.corpus.samples if s.audio is not None][:16]
            )
        joined_before, joined_after = (
            np.concatenate([states[name] for name in CONTRAST_KINDS], axis=1)
            for states in (states_before, states_after)
        )
        state_drift = measure_drift(joined_before, joined_after, behavior_ids(held_out_requests.samples, "held-out"))
        tensors = {name: refusal_direction.project(states_after[name]) for name in CONTRAST_KINDS}
        tensors |= {"cosine": refusal_direction.cosine(refitted_direction), "encoder_difference": encoder_difference}
        tensors |= {
            "drift": state_drift.relative,
            "drift_low": state_drift.low,
            "drift_high": state_drift.high,
            "cka": state_drift.cka,
        }
        tensors |= _probe_decisions(fit_requests, fit_states, held_out_requests, states_after)
        with draft.file("projections.safetensors") as path:
            save_file({**tensors, "input_difference": np.array([state_drift.input_difference])}, path)

    config = {**held_out_requests.config, "step": step, "loading": ctx.loading.cache_key}
    inputs: dict[str, Artifact | str] = {
        "model": model_hash(arm.model),
        "direction": base_direction,
        **held_out_requests.inputs,
    }
    inputs["states"] = base_states
    if adapter is not None:
        inputs["adapter"] = adapter
    return ctx.store.get_or_make("projections", 4, config, inputs, make, packages=MODEL_PACKAGES)
