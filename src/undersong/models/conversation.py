"""A prompt as the chat messages that a family's template takes.  Knows no loaded model."""

from __future__ import annotations

from typing import Any

from undersong.models.family import BY_ROLE, Family
from undersong.types import Prompt

AUDIO_CONTENT = {"type": "audio", "audio": ""}  # a piece of a message; published templates look for either key


def chat_messages(prompt: Prompt, family: Family) -> list[dict[str, Any]]:
    """Chat messages of a prompt; audio content stands as a placeholder.

    A family without a system role gets the system text as the first text of the user's turn.
    """
    by_role = family.system == BY_ROLE
    content: list[dict[str, str]] = [AUDIO_CONTENT] if prompt.modality == "audio" else []
    # One piece of text, not two: templates write pieces one after the other without a space.
    if prompt.user_text:
        content.insert(0 if prompt.instruction_first else len(content), {"type": "text", "text": prompt.user_text})
    if prompt.system_text and not by_role:
        content.insert(0, {"type": "text", "text": prompt.system_text + "\n"})
    messages: list[dict[str, Any]] = []
    if prompt.system_text and by_role:
        messages.append({"role": "system", "content": [{"type": "text", "text": prompt.system_text}]})
    return [*messages, {"role": "user", "content": content}]
