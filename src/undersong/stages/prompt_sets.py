"""Prompt sets as requests to a model: in which modality, how prompted, and what is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from undersong.settings.presets import PromptSettings
from undersong.stages.context import Corpus
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
