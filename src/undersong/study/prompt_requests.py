"""What a study asks its models: which prompt sets at which step, in which modality, and how prompted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from undersong.models.refs import family_of_ref
from undersong.settings.evaluation import PromptSet
from undersong.settings.presets import PromptSettings, published_prompt_settings
from undersong.stages.context import Corpus
from undersong.stages.prompt_sets import PromptSetRequest
from undersong.study.schema import Study

if TYPE_CHECKING:
    from undersong.evaluation.refusal_margin import MarginSettings


def prompt_set_requests(
    study: Study, corpora: dict[str, Corpus], ref: str, is_last_step: bool
) -> list[PromptSetRequest]:
    """Prompt sets of a model at one step.

    At the last step these are all sets; before, only those of the curve, as audio and without a defense's system
    prompt.

    Args:
        study: The study.
        corpora: Corpus of each prompt set.
        ref: The model.
        is_last_step: True at the last step.
    """
    evaluation, requests = study.evaluation, []
    for name, prompt_set in study.prompt_sets.items():
        for modality in evaluation.modalities:
            if prompt_set.noise is not None and modality == "text":
                continue  # noise does not apply to text
            prompt_settings = prompt_settings_for(study, ref, modality, prompt_set)
            for system, system_text in evaluation.system_prompts.items():
                on_curve = name in study.curve_prompt_sets and modality == "audio" and system == study.undefended_system
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
                            margin_settings(study) if prompt_set.harmful else None,
                        )
                    )
    return requests


def margin_settings(study: Study) -> MarginSettings | None:
    """Texts of the refusal margin of a study's prompt sets; None if the study does not measure it."""
    return margin_texts(study) if study.evaluation.refusal_margin else None


def margin_texts(study: Study) -> MarginSettings:
    """Texts of the refusal margin: known replies under the judge `exact`, else the openers of open replies."""
    from undersong.evaluation.refusal_margin import MarginSettings

    return MarginSettings(study.refusal_texts if study.evaluation.judge == "exact" else ())


def prompt_settings_for(study: Study, ref: str, modality: str, prompt_set: PromptSet | None = None) -> PromptSettings:
    """Prompt settings of a model, with a prompt set's own instruction and token limit.

    Args:
        study: The study.
        ref: The model.
        modality: Modality of the prompts.
        prompt_set: The prompt set.
    """
    evaluation = study.evaluation
    if evaluation.protocol == "published":
        prompt_settings = published_prompt_settings(family_of_ref(ref).name, modality)
    else:
        prompt_settings = PromptSettings(evaluation.instruction, study.max_new_tokens)
    if prompt_set is not None and prompt_set.instruction is not None:
        prompt_settings = replace(prompt_settings, instruction=prompt_set.instruction, instruction_first=False)
    return (
        prompt_settings
        if prompt_set is None or prompt_set.max_new_tokens is None
        else replace(prompt_settings, max_new_tokens=prompt_set.max_new_tokens)
    )


def repetition_requests(study: Study, corpora: dict[str, Corpus]) -> list[PromptSetRequest]:
    """Spoken harmful requests to be repeated, under the first system prompt; empty if comprehension is not measured."""
    comprehension_config = study.evaluation.comprehension
    if comprehension_config is None or "audio" not in study.evaluation.modalities:
        return []
    prompt_settings, system_text = (
        PromptSettings(comprehension_config.repeat_instruction, comprehension_config.max_new_tokens),
        study.evaluation.system_prompts[study.undefended_system],
    )
    harmful_sets = (name for name, prompt_set in study.prompt_sets.items() if prompt_set.harmful)
    return [
        PromptSetRequest(name, corpora[name], True, "audio", study.undefended_system, system_text, prompt_settings)
        for name in harmful_sets
    ]
