"""Prompts built from the samples of a prompt set, for one modality and one system prompt."""

from __future__ import annotations

from collections.abc import Sequence

from undersong.types import MODALITIES, Prompt, Sample, UndersongError


def make_prompts(
    samples: Sequence[Sample],
    *,
    set_name: str,
    harmful: bool,
    modality: str,
    system: str,
    system_text: str | None,
    instruction: str | None = None,
    instruction_first: bool = False,
) -> list[Prompt]:
    """Make one prompt per sample.

    Args:
        samples: Samples of the prompt set.
        set_name: Name of the prompt set.
        harmful: True for a harmful set.
        modality: `audio` or `text`.
        system: Name of the system prompt.
        system_text: Text of the system prompt, or None.
        instruction: Text added to the request, or None.
        instruction_first: Put the instruction before the request.

    Raises:
        UndersongError: The modality is unknown, or a sample lacks its audio or text.
    """
    if modality not in MODALITIES:
        raise UndersongError(f"There is no modality {modality!r}; use audio or text.")
    for sample in samples:
        if (sample.audio if modality == "audio" else sample.text) is None:
            missing, other = ("audio", "text") if modality == "audio" else ("text", "audio")
            raise UndersongError(
                f"Sample {sample.id} of set {set_name} has no {missing}; add it, or take the modality {other} "
                f"(--modality {other})."
            )
    prompt_fields = (set_name, harmful, modality, system, system_text, instruction, instruction_first)
    return [Prompt(sample, *prompt_fields) for sample in samples]
