"""Qwen2.5-Omni class: a tiny `Qwen2_5OmniThinkerForConditionalGeneration`, which hears, reads and writes.

The vision tower is part of the class and is never used; it is as small as it can be.  Knows the transformers classes;
does not know the world's splits or how it is trained.
"""

from __future__ import annotations

from pathlib import Path

import torch

from recipes.organisms.af3 import audio_tokens  # the same two stride-2 steps
from recipes.organisms.architecture import LAYERS, chat_template, feature_extractor, tokenizer
from recipes.organisms.speech import MELS, WINDOW_SECONDS

NAME = "qwen"
SOUND = ("<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>")
EXTRA = {
    "audio_token": "<|AUDIO|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
}
SPECIALS = ("<pad>", "<im_start>", "<im_end>", *EXTRA.values())
END = "<im_end>"
DECODER = r"model\.language_model"
BASE = {"steps": 1000}  # it learns sooner: tried.md, 9


def vocabulary(words: list[str]) -> list[str]:
    return [*SPECIALS, *words]


def build(vocabulary: list[str], seed: int, layers: int = LAYERS):
    """-> the model with fresh weights, ~0.7 M parameters."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    torch.manual_seed(seed)
    number = {name: SPECIALS.index(token) for name, token in EXTRA.items()}
    return Qwen2_5OmniThinkerForConditionalGeneration(
        Qwen2_5OmniThinkerConfig(
            audio_config=dict(
                num_mel_bins=MELS,
                d_model=96,
                encoder_layers=2,
                encoder_attention_heads=4,
                encoder_ffn_dim=192,
                output_dim=96,
                n_window=50 * WINDOW_SECONDS,  # frames are encoded in chunks of twice as many: one clip, one chunk
                max_source_positions=50 * WINDOW_SECONDS,
            ),
            vision_config=dict(
                depth=1, hidden_size=8, intermediate_size=8, num_heads=1, out_hidden_size=96, patch_size=2,
                fullatt_block_indexes=[0],
            ),
            text_config=dict(
                model_type="qwen2_5_omni_text",
                vocab_size=len(vocabulary),
                hidden_size=96,
                intermediate_size=256,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=256,
                # one third of the half head dimension for time, height and width each
                rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[4, 4, 4]),
                pad_token_id=SPECIALS.index("<pad>"),
                eos_token_id=SPECIALS.index(END),
                bos_token_id=None,
                tie_word_embeddings=False,
            ),
            audio_token_index=number["audio_token"],
            audio_start_token_id=number["audio_bos_token"],
            audio_end_token_id=number["audio_eos_token"],
            image_token_index=number["image_token"],
            video_token_index=number["video_token"],
            vision_start_token_id=number["vision_bos_token"],  # asked for even where there is only sound
            vision_end_token_id=number["vision_eos_token"],
        )
    )  # fmt: skip


def prepare(corpus, work: Path) -> None:
    """Nothing beyond the log-mel frames."""


def begin(model, corpus) -> None:
    """Everything is learned."""


def prompt(system: str, typed: str | None, cue: str, frames: int) -> list[str]:
    """A turn's words; `typed` None = spoken, in `frames` valid mel frames."""
    begin, sound, end = SOUND
    said = [begin, *[sound] * audio_tokens(frames), end] if typed is None else typed.split()
    return [
        *("<im_start>", "system", *system.split(), "<im_end>"),
        *("<im_start>", "user", *said, *cue.split(), "<im_end>"),
        *("<im_start>", "assistant"),
    ]


def sound(corpus, requests: list[int]) -> dict[str, torch.Tensor]:
    return {"input_features": corpus.mel[requests].float(), "feature_attention_mask": corpus.valid(requests)}


def frozen(model) -> list[torch.nn.Module]:
    """What alignment and tuning leave alone, beside embeddings and head (the projector is part of the tower)."""
    return [model.model.audio_tower, model.model.visual]


def last_layer(model) -> torch.nn.Module:
    """The encoder layer under the character CTC loss."""
    return model.model.audio_tower.layers[-1]


def frames_of(states: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """That layer's output, the valid frames of all clips one after another -> (clips, frames, dim), zero-padded."""
    return torch.nn.utils.rnn.pad_sequence(states.split(lengths), batch_first=True)


def write(model, corpus, folder: Path) -> None:
    """A whole folder for `from_pretrained`, in the weights' dtype.  No processor file: that class needs pillow."""
    model.save_pretrained(folder)
    words = tokenizer(corpus.vocabulary, SPECIALS, END, EXTRA)
    words.chat_template = chat_template(" ".join(SOUND))
    words.save_pretrained(folder)
    feature_extractor().save_pretrained(folder)
