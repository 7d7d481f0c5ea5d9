"""What a study asks an arm at a step, and who judges its replies.  Knows the study and the stages; decides no order."""

from __future__ import annotations

from dataclasses import replace

from undersong.models.identify import family_of_ref
from undersong.pipeline.stages import PromptSetRequest
from undersong.stages.context import Corpus
from undersong.study import PromptSet, Study
from undersong.study.protocols import Manner, published_prompt_settings


def prompt_set_requests(
    study: Study, corpora: dict[str, Corpus], ref: str, is_last_step: bool
) -> list[PromptSetRequest]:
    """At the last step everything; before it the curve's sets, spoken, under the plain system text."""
    evaluation, requests = study.evaluation, []
    for name, prompt_set in study.sets.items():
        for modality in evaluation.modalities:
            if prompt_set.noise is not None and modality == "text":
                continue  # nothing is heard of it
            prompt_settings = prompt_settings_for(study, ref, modality, prompt_set)
            for system, system_text in evaluation.systems.items():
                on_curve = name in evaluation.curve and modality == "audio" and system == study.undefended_system
                if is_last_step or on_curve:
                    requests.append(
                        PromptSetRequest(
                            name,
                            corpora[name],
                            prompt_set.harmful,
                            modality,
                            system,
                            system_text,
                            prompt_settings,
                            prompt_set.judge,
                        )
                    )
    return requests


def prompt_settings_for(study: Study, ref: str, modality: str, prompt_set: PromptSet | None = None) -> Manner:
    """How a model is asked, and with what of its own a set is."""
    evaluation = study.evaluation
    if evaluation.protocol == "published":
        prompt_settings = published_prompt_settings(family_of_ref(ref).name, modality)
    else:
        prompt_settings = Manner(evaluation.instruction, study.max_new_tokens)
    if prompt_set is not None and prompt_set.instruction is not None:
        prompt_settings = replace(prompt_settings, instruction=prompt_set.instruction, first=False)
    return (
        prompt_settings
        if prompt_set is None or prompt_set.limit is None
        else replace(prompt_settings, limit=prompt_set.limit)
    )


def repetition_requests(study: Study, corpora: dict[str, Corpus]) -> list[PromptSetRequest]:
    """The harmful requests that are spoken, to be repeated under the first system text; none where nobody wants it."""
    comprehension_config = study.evaluation.comprehension
    if comprehension_config is None or "audio" not in study.evaluation.modalities:
        return []
    prompt_settings, system_text = (
        Manner(comprehension_config.instruction, comprehension_config.limit),
        study.evaluation.systems[study.undefended_system],
    )
    harmful_sets = (name for name, prompt_set in study.sets.items() if prompt_set.harmful)
    return [
        PromptSetRequest(name, corpora[name], True, "audio", study.undefended_system, system_text, prompt_settings)
        for name in harmful_sets
    ]
