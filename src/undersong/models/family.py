"""What one family of audio LLMs is to undersong: a record that the adapter reads, and branches on nothing else.

Knows no family; the specs are in `families.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from undersong.models.audio_inputs import InputPreparation

BY_ROLE, BY_FIRST_USER_TEXT = "system role", "first user text"


@dataclass(frozen=True)
class ActivationView:
    """A place to look at while a clip is heard: the output of the module at `path`, or its positional input `argument`.

    Two-dimensional states hold one row a placeholder; three-dimensional ones (windows, rows, dim), of which a window
    with `frames` valid feature frames fills the first `rows(frames)` (None: as many as it has placeholders).
    """

    path: str
    argument: int | None = None
    rows: Callable[[int], int] | None = None


def _token_embeddings(model: Any, ids: torch.Tensor) -> torch.Tensor:
    embeddings: torch.Tensor = model.get_input_embeddings()(ids)
    return embeddings


@dataclass(frozen=True)
class Family:
    """One family.  `audio_tokens(frames)`: placeholders of a window with that many valid feature frames.

    The decoder is found by `get_decoder()`; `frozen` are the module paths of encoder and projector.
    """

    name: str
    model_types: tuple[str, ...]  # of config.json
    example: str  # a published checkpoint
    model_class: str  # of transformers, or a path `module:Class`
    audio_token: str  # the placeholder
    prepare: InputPreparation  # clip -> tensors
    audio_tokens: Callable[[int], int]
    frozen: tuple[str, ...]
    views: dict[str, ActivationView]  # by name; `tower` and `projector` at least
    placeholder: str = "audio_token_id"  # path of the placeholder's id in the config
    audio_delimiters: tuple[str, str] = ("", "")  # what the family's own processor writes around the placeholders
    max_windows: int | None = None  # most windows of the extractor's length; None: as long as the decoder's context
    window_seconds: int = 30  # that length in the published checkpoints
    cast_inputs: bool = True  # features must come in the network's dtype; False: it casts them itself, part by part
    float32: tuple[str, ...] = ()  # modules that stay so whatever dtype is asked for
    rate: int = 16_000  # Hz that the published feature extractor takes
    hop: int = 160  # samples a feature frame
    padded_placeholders: bool = False  # placeholders stand for a window's padding too; only the valid ones are pooled
    end_token: str | None = None  # ends an assistant's turn; None, or where the tokenizer has no such token: its eos
    system: str = BY_ROLE  # where a system text goes
    chat_template: str | None = None  # for checkpoints that publish none
    embed: Callable[[Any, torch.Tensor], torch.Tensor] = _token_embeddings  # (model, ids) -> decoder inputs of text
    loader: str | None = None  # `module:function` where `from_pretrained` alone cannot load a checkpoint
    meta_loader: str | None = None  # the same for the network without weights, on the meta device
    tokenizer: str | None = None  # the same for the tokenizer
    extractor: str | None = None  # the same for the feature extractor
    merged: tuple[str, ...] = ()  # LoRA folders of the checkpoint that speech needs, merged on loading
    silence_detector: str | None = (
        None  # the same for which heard vectors say nothing (model, (n, dim)) -> (n,) bool; None: none
    )
    tokenizer_options: dict[str, Any] = field(default_factory=dict)  # of `AutoTokenizer.from_pretrained`

    @property
    def max_duration_text(self) -> str:
        """The longest clip, in words."""
        return (
            "as long as its context"
            if self.max_windows is None
            else f"of up to {self.max_windows * self.window_seconds} s"
        )
