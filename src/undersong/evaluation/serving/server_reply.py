"""Strict parsing of chat completions: what a server sent becomes a reply, or a failed one with its reason."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

CONTENT_FILTER = "content_filter"
# Finish reasons of a complete reply; some servers give none.
STOP_REASONS = ("stop", "eos", "eos_token", "stop_sequence", "end_turn", None)


@dataclass(frozen=True, slots=True)
class ServerReply:
    """Reply of a server.

    `tokens` is the number of generated tokens, 0 if the server does not count them. `error` is one line, if `finish` is
    `error`.
    """

    text: str
    tokens: int
    finish: str  # stop | length | error
    error: str | None = None


def failed_reply(reason: str) -> ServerReply:
    """Reply that records a failed request."""
    return ServerReply("", 0, "error", reason)


def parse_completion(body: bytes) -> ServerReply:
    """Parse the first choice of a chat completion.

    A body of another shape, a cut by a filter, and an end by anything but the model or the limit are errors: half of an
    answer is not judged as a whole one.
    """
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, not text, or nested too deeply
        return failed_reply("the server sent no JSON")
    choices = completion.get("choices") if isinstance(completion, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return failed_reply("the server sent no choices")
    finish = choice.get("finish_reason")
    if finish == CONTENT_FILTER:
        return failed_reply(f"{CONTENT_FILTER}: the server cut the answer")
    if finish not in ("length", *STOP_REASONS):
        return failed_reply("the answer ended by neither the model nor the limit")
    text = _message_text(choice.get("message"))
    if text is None:
        return failed_reply("the server sent an answer without text")
    return ServerReply(
        replace_lone_surrogates(text),
        _completion_tokens(completion.get("usage")),
        "length" if finish == "length" else "stop",
    )


def _message_text(message: Any) -> str | None:
    """Text of a message; a model that declines may do so in the field `refusal`."""
    fields = message if isinstance(message, dict) else {}
    for text in (fields.get("content"), fields.get("refusal")):
        if text is not None:
            return text if isinstance(text, str) else None
    return None


def _completion_tokens(usage: Any) -> int:
    token_count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return (
        token_count
        if isinstance(token_count, int) and not isinstance(token_count, bool) and 0 <= token_count < 2**31
        else 0
    )


def replace_lone_surrogates(text: str) -> str:
    """Text without lone surrogates, which JSON can spell but tables cannot store."""
    return text.encode("utf-8", "replace").decode("utf-8")
