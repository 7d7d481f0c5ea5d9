"""What differs between audio LLM families, one spec each; the adapter reads it and branches on nothing else.

Knows module paths and formulas; does not know how prompts, training or evaluation use them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from undersong.types import UndersongError


@dataclass(frozen=True)
class Family:
    """One family of audio language models in transformers.

    `audio_tokens(frames)` is the number of placeholders for a clip of that many valid log-mel frames; `tower` and
    `projector` are the module paths that stay frozen; the decoder is found by `get_decoder()`.
    """

    model_type: str
    model_class: str  # a class of transformers
    processor_class: str
    tower: str
    projector: str
    audio_tokens: Callable[[int], int]
    feature_mask: str  # the processor's name for "which frames are valid"
    max_seconds: float
    processor_arguments: dict[str, Any] = field(default_factory=dict)


def _two_halvings(frames: int) -> int:
    """Audio Flamingo 3: a stride-2 convolution, then average pooling by 2 (25 placeholders a second)."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            model_type="audioflamingo3",
            model_class="AudioFlamingo3ForConditionalGeneration",
            processor_class="AudioFlamingo3Processor",
            tower="model.audio_tower",
            projector="model.multi_modal_projector",
            audio_tokens=_two_halvings,
            feature_mask="input_features_mask",
            max_seconds=600.0,
            # Nested on purpose: a flat padding=True would also reach the feature extractor, and the tower needs the
            # full window.
            processor_arguments={
                "text_kwargs": {"padding": True, "padding_side": "left"},
                "audio_kwargs": {"padding": "max_length"},
                "return_tensors": "pt",
            },
        ),
    )
}


def family_of(model_type: str, item: str) -> Family:
    """The spec for a config's `model_type`; `item` names the model in the error."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    near = get_close_matches(model_type, FAMILIES, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UndersongError(
        f"{item} is of the family {model_type!r}, which has no spec{hint}; give a model of {', '.join(FAMILIES)}."
    )
