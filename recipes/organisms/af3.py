"""Audio Flamingo 3 class: a tiny `AudioFlamingo3ForConditionalGeneration` with its processor.

Knows the transformers classes; does not know the world's splits or how it is trained.
"""

from __future__ import annotations

from pathlib import Path

import torch

from recipes.organisms.architecture import LAYERS, chat_template, feature_extractor, tokenizer
from recipes.organisms.speech import MELS, WINDOW_SECONDS

NAME = "af3"
SPECIALS = ("<pad>", "<im_start>", "<im_end>", "<sound>")
END = "<im_end>"
DECODER = r"model\.language_model"
BASE: dict[str, int] = {}  # values of `BaseRecipe` that are its own


def vocabulary(words: list[str]) -> list[str]:
    return [*SPECIALS, *words]


def build(vocabulary: list[str], seed: int, layers: int = LAYERS):
    """-> the model with fresh weights, ~0.65 M parameters."""
    from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration

    torch.manual_seed(seed)
    pad, _, end, sound = range(4)
    return AudioFlamingo3ForConditionalGeneration(
        AudioFlamingo3Config(
            audio_config=dict(
                model_type="audioflamingo3_encoder",
                num_mel_bins=MELS,
                hidden_size=96,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=192,
                max_source_positions=50 * WINDOW_SECONDS,
            ),
            text_config=dict(
                model_type="qwen2",
                vocab_size=len(vocabulary),
                hidden_size=96,
                intermediate_size=256,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=256,
                pad_token_id=pad,
                eos_token_id=end,
                bos_token_id=None,
            ),
            audio_token_id=sound,
        )
    )


def prepare(corpus, work: Path) -> None:
    """Nothing beyond the log-mel frames."""


def begin(model, corpus) -> None:
    """Everything is learned."""


def prompt(system: str, typed: str | None, cue: str, frames: int) -> list[str]:
    """A turn's words; `typed` None = spoken, in `frames` valid mel frames."""
    said = ["<sound>"] * audio_tokens(frames) if typed is None else typed.split()
    return [
        *("<im_start>", "system", *system.split(), "<im_end>"),
        *("<im_start>", "user", *said, *cue.split(), "<im_end>"),
        *("<im_start>", "assistant"),
    ]


def audio_tokens(frames: int) -> int:
    """Placeholders for a clip of `frames` mel frames (two stride-2 steps: 25 a second)."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def sound(corpus, requests: list[int]) -> dict[str, torch.Tensor]:
    return {"input_features": corpus.mel[requests].float(), "input_features_mask": corpus.valid(requests)}


def frozen(model) -> list[torch.nn.Module]:
    """What alignment and tuning leave alone, beside embeddings and head."""
    return [model.model.audio_tower, model.model.multi_modal_projector]


def last_layer(model) -> torch.nn.Module:
    """The encoder layer under the character CTC loss."""
    return model.model.audio_tower.layers[-1]


def frames_of(states: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """That layer's output -> (clips, frames, dim)."""
    return states


def write(model, corpus, folder: Path) -> None:
    """A whole folder for `from_pretrained`, in the weights' dtype."""
    from transformers import AudioFlamingo3Processor

    model.save_pretrained(folder)
    words = tokenizer(corpus.vocabulary, SPECIALS, END, {"audio_token": "<sound>"})
    AudioFlamingo3Processor(
        feature_extractor(), words, chat_template=chat_template("<sound>"), audio_token="<sound>"
    ).save_pretrained(folder)
