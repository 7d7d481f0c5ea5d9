"""Prompt sets of a study as requests to a model: which sets at which step, in which modality, how prompted, and what is
measured on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

from undersong.models.refs import family_of_ref
from undersong.stages.context import Corpus
from undersong.study.evaluation import PromptSet
from undersong.study.presets import PromptSettings, published_prompt_settings
from undersong.study.schema import Study
from undersong.types import Prompt

if TYPE_CHECKING:
    from undersong.evaluation.refusal_margin import MarginSettings


@dataclass(frozen=True)
class PromptSetRequest:
    """Prompt set in one modality under one system prompt; `judge` is the set's own judge, if it has one."""

    set_name: str
    corpus: Corpus
    harmful: bool
    modality: str
    system: str
    system_text: str | None
    prompt_settings: PromptSettings
    judge: str | None = None
    margin: MarginSettings | None = None  # texts of the refusal margin; None: it is not measured

    @property
    def key(self) -> list[Any]:
        """Part of the cache key that replies depend on, besides the model and the corpus."""
        return [
            self.set_name,
            self.harmful,
            self.modality,
            self.system,
            self.system_text,
            list(astuple(self.prompt_settings)),
        ]


def group_by_token_limit(requests: Sequence[PromptSetRequest]) -> list[tuple[int, list[PromptSetRequest]]]:
    """Group requests by token limit, one batch of generation each."""
    groups: dict[int, list[PromptSetRequest]] = {}
    for request in requests:
        groups.setdefault(request.prompt_settings.max_new_tokens, []).append(request)
    return list(groups.items())


def in_reply_order(requests: Sequence[PromptSetRequest]) -> list[PromptSetRequest]:
    """The requests as artifacts are filed under them: grouped by token limit, as they are generated."""
    return [request for _, group in group_by_token_limit(requests) for request in group]


def request_prompts(requests: Sequence[PromptSetRequest]) -> list[Prompt]:
    """Prompts of all requests, in order."""
    from undersong.evaluation.prompts import make_prompts

    return [
        prompt
        for request in requests
        for prompt in make_prompts(
            request.corpus.samples,
            set_name=request.set_name,
            harmful=request.harmful,
            modality=request.modality,
            system=request.system,
            system_text=request.system_text,
            instruction=request.prompt_settings.instruction,
            instruction_first=request.prompt_settings.instruction_first,
        )
    ]


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
