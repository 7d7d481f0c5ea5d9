"""Mechanism stages: refusal directions of the base model, and held-out prompts projected on them before and after
tuning."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from undersong.stages.context import Corpus, RunContext
from undersong.stages.features import MODEL_PACKAGES
from undersong.stages.prompt_sets import PromptSetRequest, request_prompts
from undersong.stages.training import StudyArm
from undersong.store.draft import Draft
from undersong.store.store import Artifact

if TYPE_CHECKING:
    from undersong.evaluation.contrast_sets import ContrastSets

ENCODER_CLIPS = 4  # held-out clips that are encoded with the adapter on and off; hashes cover all weights


@dataclass(frozen=True)
class ContrastRequests:
    """Requests for the two sides of contrast sets in one modality; their prompts are made when a stage needs them."""

    harmful: PromptSetRequest
    benign: PromptSetRequest

    @property
    def inputs(self) -> dict[str, Artifact]:
        """Artifacts that a result on these prompts depends on, besides a model."""
        return {"harmful": self.harmful.corpus.artifact, "benign": self.benign.corpus.artifact}

    @property
    def corpora(self) -> list[Corpus]:
        """The corpora of both sides."""
        return [self.harmful.corpus, self.benign.corpus]

    @property
    def sets(self) -> ContrastSets:
        """The prompts of both sides."""
        from undersong.evaluation.contrast_sets import ContrastSets

        return ContrastSets(request_prompts([self.harmful]), request_prompts([self.benign]))

    @property
    def config(self) -> dict[str, Any]:
        """Modality, system prompt and prompt settings of both sets, as part of a cache key."""
        request = self.harmful
        return {
            "modality": request.modality,
            "system": request.system_text,
            "manner": list(astuple(request.prompt_settings)),
        }


def fit_base_direction(ctx: RunContext, arm: StudyArm, contrast: ContrastRequests) -> Artifact:
    """Refusal direction per layer of the base model, by difference in means."""
    from undersong.models.refs import model_hash

    def make(draft: Draft) -> None:
        from undersong.research.mechanism.directions import fit_direction, save_direction
        from undersong.research.mechanism.measurement import contrast_states

        with ctx.model_with_audio(arm.model, contrast.corpora) as model:
            refusal_direction = fit_direction(*contrast_states(model, contrast.sets))
        with draft.file("direction.safetensors") as path:
            save_direction(refusal_direction, path)

    config = {**contrast.config, "loading": ctx.loading.cache_key}
    inputs: dict[str, Artifact | str] = {"model": model_hash(arm.model), **contrast.inputs}
    return ctx.store.get_or_make("direction", 2, config, inputs, make, packages=MODEL_PACKAGES)


def compute_hidden_states(ctx: RunContext, arm: StudyArm, held_out_requests: ContrastRequests) -> Artifact:
    """Hidden states of the base at the last token of the held-out prompts, from which drift is measured.

    `states.safetensors` holds the harmful and benign states, (layers + 1, prompts, dim) float32. For a 7B model they
    take about 0.4 MB per prompt.

    Args:
        ctx: Store, model and audio features.
        arm: The base.
        held_out_requests: Held-out contrast sets.
    """
    from undersong.models.refs import model_hash

    def make(draft: Draft) -> None:
        from safetensors.numpy import save_file

        from undersong.research.mechanism.measurement import contrast_states

        with ctx.model_with_audio(arm.model, held_out_requests.corpora) as model:
            harmful, benign = contrast_states(model, held_out_requests.sets)
        with draft.file("states.safetensors") as path:
            save_file({"harmful": harmful, "benign": benign}, path)

    config = {**held_out_requests.config, "loading": ctx.loading.cache_key}
    inputs: dict[str, Artifact | str] = {"model": model_hash(arm.model), **held_out_requests.inputs}
    return ctx.store.get_or_make("states", 1, config, inputs, make, packages=MODEL_PACKAGES)


def project_held_out(
    ctx: RunContext,
    arm: StudyArm,
    adapter: Artifact | None,
    step: int,
    base_direction: Artifact,
    base_states: Artifact,
    fit_requests: ContrastRequests,
    held_out_requests: ContrastRequests,
) -> Artifact:
    """Project held-out prompts on the base's direction, and measure what changes with the adapter on.

    `projections.safetensors` holds harmful and benign (layers + 1, prompts); cosine, drift, drift_low, drift_high and
    cka (layers + 1,); encoder_difference and input_difference (1,). With enough prompts for probes, harm_decisions
    (layers + 1, held-out prompts) holds the decisions of probes of this model.

    Args:
        ctx: Store, model and audio features.
        arm: The run whose model is measured.
        adapter: The adapter artifact that is on; None: the base.
        step: The step of the adapter.
        base_direction: An artifact of `fit_base_direction`.
        base_states: An artifact of `compute_hidden_states`.
        fit_requests: The contrast sets.
        held_out_requests: The sets to report on.
    """
    from undersong.models.refs import model_hash

    def make(draft: Draft) -> None:
        import numpy as np
        from safetensors.numpy import load_file, save_file

        from undersong.research.mechanism.directions import load_direction
        from undersong.research.mechanism.measurement import held_out_drift, measure_mechanism
        from undersong.research.mechanism.probes import harm_probe_decision_values

        direction = load_direction(base_direction.path / "direction.safetensors")
        before = load_file(base_states.path / "states.safetensors")
        fit, held_out = fit_requests.sets, held_out_requests.sets
        corpora = [*fit_requests.corpora, *held_out_requests.corpora]
        with ctx.model_with_audio(arm.model, corpora, adapter, step) as model:
            measured = measure_mechanism(model, fit, held_out)
            spoken = [sample for sample in held_out.samples[0] if sample.audio is not None]
            encoder_difference = model.max_encoding_difference(spoken[:ENCODER_CLIPS])
        after = measured.held_out_states
        drift = held_out_drift((before["harmful"], before["benign"]), after, held_out)
        decisions = harm_probe_decision_values(fit.samples, measured.fit_states, held_out.samples, after)
        tensors = {
            "harmful": direction.project(after[0]),
            "benign": direction.project(after[1]),
            "cosine": direction.cosine(measured.direction),
            "encoder_difference": encoder_difference,
            "drift": drift.relative,
            "drift_low": drift.low,
            "drift_high": drift.high,
            "cka": drift.cka,
            "input_difference": np.array([drift.input_difference]),
        }
        with draft.file("projections.safetensors") as path:
            save_file(tensors if decisions is None else {**tensors, "harm_decisions": decisions}, path)

    config = {**held_out_requests.config, "step": step, "loading": ctx.loading.cache_key}
    inputs: dict[str, Artifact | str] = {
        "model": model_hash(arm.model),
        "direction": base_direction,
        **held_out_requests.inputs,
    }
    inputs["states"] = base_states
    if adapter is not None:
        inputs["adapter"] = adapter
    return ctx.store.get_or_make("projections", 6, config, inputs, make, packages=MODEL_PACKAGES)
