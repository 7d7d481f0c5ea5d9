"""What a server's chat completion says, read without trust: an answer, or one line on why it is none.

Knows the shape of a chat completion; does not know connections.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

FILTER = "content_filter"
# A reply that ended by itself, as servers call it; some say nothing.
STOPPED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn", None)


@dataclass(frozen=True, slots=True)
class Answer:
    """`tokens`: of the answer, 0 where the server does not count them.  `error`: one line, where finish is `error`."""

    text: str
    tokens: int
    finish: str  # stop | length | error
    error: str | None = None


def failed(reason: str) -> Answer:
    """No answer."""
    return Answer("", 0, "error", reason)


def read_answer(body: bytes) -> Answer:
    """The first choice of a chat completion.  What has another shape, a cut by a filter, and an end by anything but
    the model or the limit are errors: half of an answer is not judged as if it were one."""
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):  # no JSON, no text at all, or nested without end
        return failed("the server sent no JSON")
    choices = whole.get("choices") if isinstance(whole, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return failed("the server sent no choices")
    finish = choice.get("finish_reason")
    if finish == FILTER:
        return failed(f"{FILTER}: the server cut the answer")
    if finish not in ("length", *STOPPED):
        return failed("the answer ended by neither the model nor the limit")
    text = _text(choice.get("message"))
    if text is None:
        return failed("the server sent an answer without text")
    return Answer(well_formed(text), _tokens(whole.get("usage")), "length" if finish == "length" else "stop")


def _text(message: Any) -> str | None:
    """A model that declines may do so in a field of its own; what it says there is what it says."""
    said = message if isinstance(message, dict) else {}
    for text in (said.get("content"), said.get("refusal")):
        if text is not None:
            return text if isinstance(text, str) else None
    return None


def _tokens(usage: Any) -> int:
    counted = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return counted if isinstance(counted, int) and not isinstance(counted, bool) and 0 <= counted < 2**31 else 0


def well_formed(text: str) -> str:
    """Without halves of surrogate pairs: JSON can spell them, and no table of ours can hold them."""
    return text.encode("utf-8", "replace").decode("utf-8")
