"""A prompt as the chat messages that a family's template takes.  Knows no loaded model."""

from __future__ import annotations

from typing import Any

from undersong.models.family import BY_ROLE, Family
from undersong.models.hearing import AUDIO
from undersong.types import Prompt


def conversation(prompt: Prompt, family: Family) -> list[dict[str, Any]]:
    """Chat messages of a prompt; audio content stands as a placeholder.

    A family without a system role gets the system text as the first text of the user's turn.
    """
    by_role = family.system == BY_ROLE
    said: list[dict[str, str]] = [AUDIO] if prompt.modality == "audio" else []
    # One piece of text, not two: templates write pieces one after the other without a space.
    if prompt.typed:
        said.insert(0 if prompt.instruction_first else len(said), {"type": "text", "text": prompt.typed})
    if prompt.system_text and not by_role:
        said.insert(0, {"type": "text", "text": prompt.system_text + "\n"})
    turns: list[dict[str, Any]] = []
    if prompt.system_text and by_role:
        turns.append({"role": "system", "content": [{"type": "text", "text": prompt.system_text}]})
    return [*turns, {"role": "user", "content": said}]
