"""From inspect_ai's chat messages to one of our prompts, or a sentence why they cannot be asked.

A prompt is one turn of the user, under a system text or none: text, or one clip with text before or after it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, ContentAudio, ContentText

from undersong.corpora import examine
from undersong.types import Prompt, Sample, UndersongError

# What changes a reply, and what greedy decoding makes of it anyway.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "temperature": (0,),
    "top_p": (1,),
    "top_k": (),
    "num_choices": (1,),
    "best_of": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "stop_seqs": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (),
    "response_schema": (),
    "reasoning_effort": ("none",),
    "reasoning_tokens": (0,),
    "modalities": ([],),
}


class Unusable(UndersongError):
    """A clip that cannot be used: an outcome of its prompt, and no mistake in what is asked."""


def refuse_options(config: Any, tools: Sequence[Any], model: str) -> None:
    """UndersongError for what `generate` is asked and cannot do."""
    if tools:
        raise UndersongError(f"{model} has no tools to call; take the tools out of the task.")
    for name, neutral in NEUTRAL.items():
        value = getattr(config, name, None)
        if value is not None and value not in neutral:
            raise UndersongError(f"{model} replies greedily, once, and knows no {name} ({value}); leave it out.")


def prompt_of(messages: Sequence[ChatMessage], model: str) -> Prompt:
    """The prompt that messages are.  Unusable: its clip; UndersongError: anything else that cannot be asked."""
    system, asked = _turns(messages, model)
    pieces = [ContentText(text=asked.content)] if isinstance(asked.content, str) else asked.content
    if odd := next((one.type for one in pieces if not isinstance(one, ContentText | ContentAudio)), None):
        raise UndersongError(f"{model} hears and reads, and takes no {odd}; give text and audio alone.")
    clips = [place for place, one in enumerate(pieces) if isinstance(one, ContentAudio)]
    if len(clips) > 1:
        raise UndersongError(f"{model} hears one clip a prompt, and here are {len(clips)}; ask one at a time.")
    if not clips:
        text = _joined(pieces)
        if not text.strip():
            raise UndersongError(f"{model} was asked nothing: the user's turn is empty; give text or audio.")
        return _prompt(Sample(_name(text.encode()), text=text), "text", system)
    (place,) = clips
    before, after = (_joined(part) for part in (pieces[:place], pieces[place + 1 :]))
    if before and after:
        raise UndersongError(f"{model} takes text before a clip or after it, not both; put it on one side.")
    spoken = _prompt(_clip(pieces[place]), "audio", system)
    return replace(spoken, instruction=before or after or None, instruction_first=bool(before))


def _prompt(sample: Sample, modality: str, system: str | None) -> Prompt:
    """What the model is asked; whether that is harmful is for a judge to know."""
    return Prompt(sample, "inspect", True, modality, "given" if system else "plain", system)


def _turns(messages: Sequence[ChatMessage], model: str) -> tuple[str | None, ChatMessageUser]:
    """The system text, and the only turn of the user."""
    system = [one.text for one in takewhile(lambda one: isinstance(one, ChatMessageSystem), messages)]
    rest = messages[len(system) :]
    if len(rest) != 1 or not isinstance(rest[0], ChatMessageUser):
        said = ", ".join(one.role for one in rest) or "nobody"
        raise UndersongError(f"{model} answers one turn of a user, and here speak {said}; ask one turn at a time.")
    return "\n".join(text for text in system if text) or None, rest[0]


def _joined(pieces: Sequence[Any]) -> str:
    return "\n".join(one.text for one in pieces if one.text)


def _clip(piece: Any) -> Sample:
    """The clip as a sample that is known by its content.  Files of a sample are inlined by inspect_ai."""
    head, _, body = piece.audio.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise UndersongError(f"The clip {piece.audio[:60]} is no base64 data URI; give one, or a file in the sample.")
    try:
        data = base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise Unusable(f"The clip is no base64 ({error}).") from None
    name = _name(data)
    usable, failed = examine([Sample(name, audio=data)])
    if failed:
        raise Unusable(f"The clip cannot be used: {failed[0].reason}.")
    return usable[0]


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
