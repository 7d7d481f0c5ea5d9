"""Kimi-Audio class: a tiny `KimiAudioForCausalLM` of this package, which hears twice: semantic codes and Whisper states.

It has no system role: the system text opens the user's turn.  Knows the package's class; does not know the world's
splits or how it is trained.
"""

from __future__ import annotations

from pathlib import Path

import torch

from recipes.organisms.architecture import LAYERS, feature_extractor, tokenizer
from recipes.organisms.speech import MELS, WINDOW_SECONDS

NAME = "kimi"
PAD, BLANK, END = "<pad>", "<|im_kimia_text_blank|>", "<|im_kimia_text_eos|>"
USER, ASSISTANT, TURN_END = "<|im_kimia_user_msg_start|>", "<|im_kimia_assistant_msg_start|>", "<|im_msg_end|>"
BEGIN, AUDIO, STOP, LAST = "<|im_media_begin|>", "<|audio|>", "<|im_media_end|>", "<|im_kimia_speech_ct_id|>"
SPECIALS = (PAD, TURN_END, BEGIN, STOP, BLANK, END, USER, ASSISTANT, LAST)
DECODER = "model"
DIM = 96
BASE: dict[str, int] = {}  # values of `BaseRecipe` that are its own


def vocabulary(words: list[str]) -> list[str]:
    """The placeholder is the last text token: its id is that of the first code."""
    return [*SPECIALS, *words, AUDIO]


def build(vocabulary: list[str], seed: int, layers: int = LAYERS):
    """-> the model with fresh weights, ~0.75 M parameters, its semantic ear still unlearned (see `prepare`)."""
    from transformers import WhisperConfig

    from recipes.organisms.kimi_codes import build_encoder
    from undersong.models.kimi.network import KimiAudioConfig, KimiAudioForCausalLM

    ear = build_encoder()  # first: it seeds itself
    torch.manual_seed(seed)
    number = vocabulary.index
    codes = ear.config.quantize_vocab_size
    model = KimiAudioForCausalLM(
        KimiAudioConfig(
            vocab_size=number(AUDIO) + codes,
            hidden_size=DIM,
            intermediate_size=256,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            rope_parameters=dict(rope_type="default", rope_theta=1e6),
            tie_word_embeddings=False,
            pad_token_id=number(PAD),
            eos_token_id=number(END),
            bos_token_id=None,
            kimia_mimo_layers=0,  # it writes and does not speak
            kimia_mimo_transformer_from_layer_index=3,
            kimia_token_offset=number(AUDIO),
            kimia_text_output_vocab=number(AUDIO),
            kimia_audio_output_vocab=codes,
            kimia_adaptor_input_dim=4 * DIM,
            kimia_media_begin=number(BEGIN),
            kimia_media_end=number(STOP),
            kimia_text_blank=number(BLANK),
            kimia_text_eos=number(END),
        ),
        tower=WhisperConfig(
            num_mel_bins=MELS, d_model=DIM, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=192,
            max_source_positions=50 * WINDOW_SECONDS, decoder_layers=1, decoder_attention_heads=1, decoder_ffn_dim=8,
            vocab_size=8, max_target_positions=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            decoder_start_token_id=1,
        ),
    )  # fmt: skip
    model.set_tokenizer(ear)
    return model


def prepare(corpus, work: Path) -> None:
    """Trains the semantic ear once, and lets it hear every clip once."""
    from recipes.organisms import kimi_codes

    corpus.ear = kimi_codes.trained(corpus, work)
    corpus.codes = kimi_codes.of_all_clips(corpus, corpus.ear, work)


def begin(model, corpus) -> None:
    """Gives a fresh model the semantic ear, which learns no more."""
    model.audio_tokenizer.load_state_dict(corpus.ear.state_dict())
    model.audio_tokenizer.requires_grad_(False)


def prompt(system: str, typed: str | None, cue: str, frames: int) -> list[str]:
    """A turn's words; `typed` None = spoken, in `frames` valid mel frames."""
    spoken = [BEGIN, *[AUDIO] * audio_tokens(frames), STOP, *([] if cue else [LAST])]
    return [
        *(USER, *system.split(), *(spoken if typed is None else typed.split()), *cue.split(), TURN_END),
        ASSISTANT,
    ]


def audio_tokens(frames: int) -> int:
    """Placeholders for a clip of `frames` mel frames: 12.5 a second."""
    return (frames - 1) // 8 + 1


def sound(corpus, requests: list[int]) -> dict[str, torch.Tensor]:
    return {
        "input_features": corpus.mel[requests].float(),
        "code_attention_mask": corpus.valid(requests),
        "codes": torch.cat([corpus.codes[i] for i in requests]),
    }


def frozen(model) -> list[torch.nn.Module]:
    """What alignment and tuning leave alone, beside embeddings and head."""
    return [model.audio_tower, model.audio_tokenizer, model.model.vq_adaptor]


def last_layer(model) -> torch.nn.Module:
    """The encoder layer under the character CTC loss."""
    return model.audio_tower.layers[-1]


def frames_of(states: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """That layer's output -> (clips, frames, dim)."""
    return states


def write(model, corpus, folder: Path) -> None:
    """A whole folder in the release's layout, in the weights' dtype."""
    from undersong.models.kimi.load import save_kimi
    from undersong.models.kimi.processing import CHAT_TEMPLATE, PIECES, TEXT_BEFORE_AUDIO

    save_kimi(model, folder, feature_extractor())
    words = tokenizer(corpus.vocabulary, (*SPECIALS, AUDIO), END, {"audio_token": AUDIO})
    # The release's template, but in the order of `prompt`: this one is aligned with a cue after the sound.  Words need a
    # space between one text piece and the next.
    in_order = CHAT_TEMPLATE.replace(TEXT_BEFORE_AUDIO, PIECES)
    words.chat_template = in_order.replace("piece.text -", "piece.text + ' ' -")
    words.save_pretrained(folder)
