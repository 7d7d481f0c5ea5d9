"""Conversion of inspect_ai chat messages to a prompt: one user turn with text, or one clip with text before or after
it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, ContentAudio, ContentText

from undersong.corpora.audio_metadata import examine
from undersong.types import Prompt, Sample, UndersongError

# Options that change a reply, with the values that mean greedy decoding.
NEUTRAL_OPTIONS: dict[str, tuple[Any, ...]] = {
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


class UnusableClipError(UndersongError):
    """Clip that cannot be used: the outcome of its prompt, not an error of the request."""


def check_generate_options(config: Any, tools: Sequence[Any], model: str) -> None:
    """Check the options of `generate`.

    Raises:
        UndersongError: Tools are given, or an option does not mean greedy decoding.
    """
    if tools:
        raise UndersongError(f"{model} cannot call tools; remove the tools from the task.")
    for name, neutral in NEUTRAL_OPTIONS.items():
        value = getattr(config, name, None)
        if value is not None and value not in neutral:
            raise UndersongError(
                f"{model} decodes greedily, once, and does not support {name} ({value}); leave it out."
            )


def prompt_of_messages(messages: Sequence[ChatMessage], model: str) -> Prompt:
    """Prompt of a conversation.

    Raises:
        UnusableClipError: The clip cannot be used.
        UndersongError: The messages are not a prompt for this model.
    """
    system, user_message = _split_turns(messages, model)
    pieces = [ContentText(text=user_message.content)] if isinstance(user_message.content, str) else user_message.content
    if unsupported_type := next(
        (piece.type for piece in pieces if not isinstance(piece, ContentText | ContentAudio)), None
    ):
        raise UndersongError(f"{model} supports text and audio, not {unsupported_type}; give only text and audio.")
    clip_indices = [index for index, piece in enumerate(pieces) if isinstance(piece, ContentAudio)]
    if len(clip_indices) > 1:
        raise UndersongError(f"{model} supports one clip per prompt, not {len(clip_indices)}; send one at a time.")
    if not clip_indices:
        text = _join_text(pieces)
        if not text.strip():
            raise UndersongError(f"The user's turn to {model} is empty; give text or audio.")
        return _make_prompt(Sample(_content_id(text.encode()), text=text), "text", system)
    (index,) = clip_indices
    text_before, text_after = (_join_text(part) for part in (pieces[:index], pieces[index + 1 :]))
    if text_before and text_after:
        raise UndersongError(f"{model} supports text before a clip or after it, not both; put it on one side.")
    audio_prompt = _make_prompt(_decode_clip(pieces[index]), "audio", system)
    return replace(audio_prompt, instruction=text_before or text_after or None, instruction_first=bool(text_before))


def _make_prompt(sample: Sample, modality: str, system: str | None) -> Prompt:
    """Prompt for the model; whether it is harmful is for the judge to know."""
    return Prompt(sample, "inspect", True, modality, "given" if system else "plain", system)


def _split_turns(messages: Sequence[ChatMessage], model: str) -> tuple[str | None, ChatMessageUser]:
    """System prompt, and the only turn of the user."""
    system_texts = [message.text for message in takewhile(lambda turn: isinstance(turn, ChatMessageSystem), messages)]
    turns = messages[len(system_texts) :]
    if len(turns) != 1 or not isinstance(turns[0], ChatMessageUser):
        roles = ", ".join(message.role for message in turns) or "no turns"
        raise UndersongError(f"{model} answers one turn of a user, not {roles}; send one turn at a time.")
    return "\n".join(text for text in system_texts if text) or None, turns[0]


def _join_text(pieces: Sequence[Any]) -> str:
    return "\n".join(piece.text for piece in pieces if piece.text)


def _decode_clip(piece: Any) -> Sample:
    """Clip as a sample whose id is a hash of its content. inspect_ai inlines the files of a sample."""
    header, _, body = piece.audio.partition(",")
    if not header.startswith("data:") or not header.endswith(";base64"):
        raise UndersongError(
            f"The clip {piece.audio[:60]} is not a base64 data URI; give one, or a file in the sample."
        )
    try:
        data = base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise UnusableClipError(f"The clip is not base64 ({error}).") from None
    name = _content_id(data)
    samples, failures = examine([Sample(name, audio=data)])
    if failures:
        raise UnusableClipError(f"The clip cannot be used: {failures[0].reason}.")
    return samples[0]


def _content_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
